// A Node.js origin: node origin.mjs PORT KEY. It speaks HTTP/1.1 and HTTP/2 on one TLS port, chosen by ALPN.
import fs from 'node:fs';
import http2 from 'node:http2';
import { createHash } from 'node:crypto';

const [port, pem] = process.argv.slice(2);
const acks = new Map();
const acknowledged = (n) => {
  if (!acks.has(n)) {
    let done;
    const promise = new Promise((resolve) => { done = resolve; });
    acks.set(n, { promise, done });
  }
  return acks.get(n);
};
const zeroes = Buffer.alloc(64 << 10);

async function read(req) {
  const hash = createHash('sha256');
  let length = 0;
  for await (const chunk of req) {
    hash.update(chunk);
    length += chunk.length;
  }
  return { length, sha256: hash.digest('hex') };
}

const routes = {
  // What arrived, exactly.
  async inspect(req, res) {
    const body = await read(req);
    res.setHeader('Content-Type', 'application/json');
    res.end(JSON.stringify({ method: req.method, url: req.url, version: req.httpVersion, headers: req.rawHeaders, trailers: req.rawTrailers, ...body }));
  },
  echo(req, res) { req.pipe(res); },
  // A response with names in unusual case and order.
  headers(req, res) {
    res.sendDate = false;
    res.writeHead(200, 'Quite Fine', ['X-zETA', '1', 'content-length', '2', 'X-alpha', '2', 'X-zETA', '3']);
    res.end('ok');
  },
  trailers(req, res) {
    res.setHeader('Trailer', 'X-Checksum');
    res.write('body');
    res.addTrailers({ 'X-Checksum': 'abc' });
    res.end();
  },
  chunks(req, res) {
    for (const c of ['one', 'two', 'three']) res.write(c);
    res.end();
  },
  204(req, res) { res.writeHead(204); res.end(); },
  304(req, res) { res.writeHead(304, { ETag: '"x"' }); res.end(); },
  head(req, res) { res.writeHead(200, { 'Content-Length': '12345' }); res.end(); },
  hints(req, res) {
    res.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
    res.end('final');
  },
  // The next event is sent when the last one was acknowledged by another request.
  async events(req, res) {
    res.writeHead(200, { 'Content-Type': 'text/event-stream' });
    for (let n = 1; n <= 5; n++) {
      res.write(`data: ${n}\n\n`);
      await acknowledged(String(n)).promise;
    }
    res.end();
    acks.clear();
  },
  ack(req, res) { acknowledged(new URL(req.url, 'https://x').searchParams.get('n')).done(); res.end(); },
  truncated(req, res) {
    const h1 = req.httpVersionMajor === 1;
    const length = req.url.includes('length') ? { 'Content-Length': '100000' } : {};
    res.writeHead(200, length);
    res.write('x'.repeat(1000), () => setImmediate(() => (h1 ? req.socket.destroy() : res.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR))));
  },
  big(req, res) {
    let left = Number(new URL(req.url, 'https://x').searchParams.get('n'));
    const more = () => {
      while (left > 0) {
        const piece = left < zeroes.length ? zeroes.subarray(0, left) : zeroes;
        left -= piece.length;
        if (!res.write(piece)) return void res.once('drain', more);
      }
      res.end();
    };
    more();
  },
  async count(req, res) {
    let n = 0;
    for await (const chunk of req) n += chunk.length;
    res.end(String(n));
  },
  // Answers a request whose body it will not read.
  limit(req, res) { res.writeHead(413, req.httpVersionMajor === 1 ? { Connection: 'close' } : {}); res.end('too large'); },
};

const serve = (req, res) => {
  req.on('error', () => {});
  res.on('error', () => {});
  const route = routes[req.url.split(/[/?;]/)[1]] ?? routes.inspect;
  return route(req, res);
};
const server = http2.createSecureServer({ allowHTTP1: true, key: fs.readFileSync(pem), cert: fs.readFileSync(pem) }, serve);
server.on('checkContinue', (req, res) => {
  if (req.url.startsWith('/refuse')) { res.writeHead(417, { 'Content-Length': '0' }); return res.end(); }
  res.writeContinue();
  return serve(req, res);
});
server.listen(Number(port), '0.0.0.0');
