// Polls generated pages in WebAssembly and prints the median of keys a second of CPU time: <wasm> <pages> <samples> <ms a sample>
import { readFileSync } from "node:fs";

const [wasm, ...numbers] = process.argv.slice(-4);
const [pages, samples, millis] = numbers.map(Number);
const { instance } = await WebAssembly.instantiate(readFileSync(wasm), {});
const { prepare, poll } = instance.exports;
if (prepare(pages) !== 1) throw new Error("The pages were not prepared.");

const sample = () => {
  const started = performance.now();
  const before = process.cpuUsage();
  let keys = 0;
  while (performance.now() - started < millis) {
    const polled = poll(1);
    if (polled !== pages * 1000) throw new Error(`A poll saw ${polled} keys.`);
    keys += polled;
  }
  const { user, system } = process.cpuUsage(before);
  return (keys * 1e6) / (user + system);
};
// V8 compiles again what runs often: only then it is measured.
sample();
sample();
const all = Array.from({ length: samples }, sample).sort((a, b) => a - b);
console.log(all[Math.floor(all.length / 2)]);
