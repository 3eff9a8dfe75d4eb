// Call the server with the TypeScript SDK. Arguments: the command; the calls come on standard input.
import { readFileSync } from "node:fs";
import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const given = JSON.parse(readFileSync(0, "utf8"));
const about = JSON.parse(readFileSync("node_modules/@modelcontextprotocol/client/package.json"));
const client = new Client({ name: "tests", version: "1" });
await client.connect(new StdioClientTransport({ command: process.argv[2], args: [], env: given.env }));
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const results = [];
for (const [name, args] of given.calls) {
  const result = await client.callTool({ name, arguments: args });
  results.push([Boolean(result.isError), result.structuredContent ?? null, result.content[0].text]);
}
await client.close();
console.log(JSON.stringify({ version: about.version, tools, results }));
