// Stands in front of the worker under test. GET /__cron?cron=…&t=<ms> fires its cron; POST /__object?binding=…&name=…
// calls one of its Durable Objects as the worker itself does; everything else passes through.
export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const query = (name) => url.searchParams.get(name);
    if (url.pathname === "/__object") {
      const namespace = env[query("binding")];
      return namespace.get(namespace.idFromName(query("name"))).fetch("https://object/", request);
    }
    if (url.pathname !== "/__cron") return env.MAIN.fetch(request);
    const scheduledTime = new Date(Number(query("t")));
    return Response.json(await env.MAIN.scheduled({ cron: query("cron"), scheduledTime }));
  },
};
