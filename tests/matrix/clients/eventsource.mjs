// Follows a stream with npm's `eventsource`. Usage: node eventsource.mjs URL
import { EventSource } from "eventsource";

const source = new EventSource(process.argv[2]);
source.onmessage = ({ data }) => {
  console.log(`data: ${data}`);
  if (["exit", "error"].includes(JSON.parse(data).type)) source.close();
};
source.onerror = ({ code }) => {
  if (source.readyState === EventSource.CLOSED) console.log(`status: ${code}`);
};
