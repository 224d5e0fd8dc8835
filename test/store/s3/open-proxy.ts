import { createServer, request as httpRequest } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';

/** A proxy that leads to wherever it is asked for, and counts. */
export async function openProxy(
  leadTo: (port: number, host: string) => { port: number; host: string } = (port, host) => ({
    port,
    host,
  }),
): Promise<{ url: string; asked: string[]; close(): void }> {
  const asked: string[] = [];
  // What comes over plain HTTP names the whole address.
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '');
    asked.push(url.host);
    const { hostname: host, port } = url;
    const { headers, method } = request;
    const path = url.pathname + url.search;
    const onward = httpRequest({ ...leadTo(Number(port), host), path, method, headers });
    onward.on('error', () => response.destroy());
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode ?? 0, answer.rawHeaders);
      answer.pipe(response);
    });
    request.pipe(onward);
  });
  server.on('connect', (request, socket: Socket) => {
    asked.push(request.url ?? '');
    const { hostname, port } = new URL(`http://${request.url}`);
    const onward = connect(leadTo(Number(port), hostname), () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      onward.pipe(socket).pipe(onward);
    });
    for (const one of [onward, socket]) one.on('error', () => onward.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, asked, close: () => void server.close() };
}
