// Node.js clients: node client.mjs TASK HOST. Each prints one line of JSON.
import http2 from 'node:http2';
import https from 'node:https';

const [task, host] = process.argv.slice(2);
const print = (value) => console.log(JSON.stringify(value));

function request(options, body) {
  return new Promise((resolve, reject) => {
    const interim = [];
    const req = https.request({ host, ...options }, async (res) => {
      let text = '';
      try {
        for await (const chunk of res) text += chunk;
      } catch (err) {
        return reject(err);
      }
      resolve({ status: res.statusCode, reason: res.statusMessage, headers: res.rawHeaders, trailers: res.rawTrailers, text, interim });
    });
    req.on('information', (info) => interim.push([info.statusCode, info.headers.link]));
    req.on('error', reject);
    body ? body(req) : req.end();
  });
}

const tasks = {
  async chunkedWithTrailers() {
    const headers = { 'Transfer-Encoding': 'chunked', Trailer: 'X-Sum' };
    print(await request({ path: '/inspect', method: 'POST', headers }, (req) => {
      req.write('one');
      req.write('two');
      req.addTrailers({ 'X-Sum': '42' });
      req.end();
    }));
  },
  async hints() { print(await request({ path: '/hints' })); },
  async trailers() { print(await request({ path: '/trailers' })); },
  async headers() { print(await request({ path: '/headers' })); },
  // Many requests on one connection.
  async keepalive() {
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
    const sockets = new Set();
    for (let i = 0; i < 50; i++) {
      await new Promise((resolve, reject) => {
        const req = https.request({ host, agent, path: `/echo?${i}`, method: 'POST' }, (res) => res.resume().on('end', resolve));
        req.on('socket', (s) => sockets.add(s)).on('error', reject).end(String(i));
      });
    }
    agent.destroy();
    print({ sockets: sockets.size });
  },
  // Acknowledges each event by another request: a held-back event would never be followed by the next.
  async events() {
    const seen = [];
    await new Promise((resolve, reject) => {
      https.get({ host, path: '/events' }, async (res) => {
        for await (const chunk of res) {
          const n = /data: (\d+)/.exec(chunk)[1];
          seen.push(n);
          await request({ path: `/ack?n=${n}` });
        }
        resolve();
      }).on('error', reject);
    });
    print({ seen });
  },
  async events2() {
    const session = http2.connect(`https://${host}`);
    const seen = [];
    const stream = session.request({ ':path': '/events' });
    for await (const chunk of stream) {
      const n = /data: (\d+)/.exec(chunk)[1];
      seen.push(n);
      const ack = session.request({ ':path': `/ack?n=${n}` });
      for await (const _ of ack);
    }
    session.close();
    print({ seen });
  },
  // 200 streams at once on one connection, each with a body of its own.
  async streams() {
    const session = http2.connect(`https://${host}`);
    const one = async (i) => {
      const stream = session.request({ ':path': '/echo', ':method': 'POST' });
      const body = `${i}-`.repeat(2000 + i);
      stream.end(body);
      let text = '';
      for await (const chunk of stream) text += chunk;
      return text === body;
    };
    const results = await Promise.all(Array.from({ length: 200 }, (_, i) => one(i)));
    session.close();
    print({ intact: results.filter(Boolean).length });
  },
  async trailers2() {
    const session = http2.connect(`https://${host}`);
    const up = session.request({ ':path': '/inspect', ':method': 'POST', trailer: 'x-sum' }, { waitForTrailers: true });
    up.on('wantTrailers', () => up.sendTrailers({ 'x-sum': '42' }));
    up.end('body');
    let text = '';
    for await (const chunk of up) text += chunk;
    const down = session.request({ ':path': '/trailers' });
    let got;
    down.on('trailers', (t) => { got = t['x-checksum']; });
    for await (const _ of down);
    session.close();
    print({ up: JSON.parse(text).trailers, down: got });
  },
  async hints2() {
    const session = http2.connect(`https://${host}`);
    const stream = session.request({ ':path': '/hints' });
    const interim = [];
    stream.on('headers', (h) => interim.push([h[':status'], h.link]));
    let text = '';
    for await (const chunk of stream) text += chunk;
    session.close();
    print({ interim, text });
  },
  async truncated2() {
    const session = http2.connect(`https://${host}`);
    const stream = session.request({ ':path': '/truncated' });
    let length = 0;
    try {
      for await (const chunk of stream) length += chunk.length;
      print({ length, error: null });
    } catch (err) {
      print({ length, error: err.code });
    }
    session.destroy();
  },
  async expect2() {
    const results = {};
    for (const path of ['/inspect', '/refuse']) {
      const session = http2.connect(`https://${host}`);
      const stream = session.request({ ':path': path, ':method': 'POST', expect: '100-continue' });
      results[path] = await new Promise((resolve, reject) => {
        let continued = false;
        stream.on('continue', () => { continued = true; stream.end('hello'); });
        stream.on('response', (h) => { resolve([h[':status'], continued]); });
        stream.on('error', reject);
      });
      session.destroy();
    }
    print(results);
  },
  async websocket() {
    const socket = new WebSocket(`wss://${host}/`);
    const got = [];
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => { socket.send('hello'); socket.send(new Uint8Array(100000)); };
    socket.onmessage = ({ data }) => {
      got.push(typeof data === 'string' ? data : data.byteLength);
      if (got.length === 2) socket.close(1000, 'done');
    };
    await new Promise((resolve) => { socket.onclose = (e) => resolve(got.push(e.code)); socket.onerror = () => resolve(); });
    print(got);
  },
};
await tasks[task]();
