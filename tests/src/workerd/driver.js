// Stands in front of the worker under test: GET /__cron?cron=…&t=<ms> fires its cron, everything else passes through.
export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    if (url.pathname !== "/__cron") return env.MAIN.fetch(request);
    const cron = url.searchParams.get("cron");
    const scheduledTime = new Date(Number(url.searchParams.get("t")));
    return Response.json(await env.MAIN.scheduled({ cron, scheduledTime }));
  },
};
