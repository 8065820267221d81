// A careful handler in Node: it splits frames by hand, parses and writes JSON, holds the upstream back for a slow
// browser, and ends it when the browser leaves.
import http from "node:http";

const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });

function translated(frame) {
  let type = "message";
  let data = "";
  for (const line of frame.split("\n")) {
    if (line.startsWith("event: ")) type = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  const body = JSON.parse(data);
  const message = type === "exit" ? { type, code: body.exit_code } : { type, line: body.line };
  return `data: ${JSON.stringify(message)}\n\n`;
}

const server = http.createServer((request, response) => {
  const shape = new URL(request.url, "http://localhost").searchParams.get("shape");
  const upstream = http.get(`${process.env.UPSTREAM}/${shape}`, { agent }, (stream) => {
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
    let pending = "";
    stream.setEncoding("utf8");
    stream.on("data", (text) => {
      pending += text;
      if (pending.includes("\r\n")) pending = pending.replaceAll("\r\n", "\n");
      let end;
      while ((end = pending.indexOf("\n\n")) >= 0) {
        const frame = pending.slice(0, end);
        pending = pending.slice(end + 2);
        if (!response.write(translated(frame)) && !stream.isPaused()) {
          stream.pause();
          response.once("drain", () => stream.resume());
        }
      }
    });
    stream.on("end", () => response.end());
  });
  response.on("close", () => upstream.destroy());
});

server.listen(Number(process.env.PORT), "127.0.0.1");
