// A site with serve-grip (and so @fanoutio/grip): node site.mjs PORT HOOK MODULES
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';

const [port, hook, modules] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(`${modules}/@fanoutio/${path}`));
const { ServeGrip } = await load('serve-grip/build/index-node.js');
const { HttpResponseFormat, HttpStreamFormat, Item, WebSocketMessageFormat } =
  await load('grip/build/index-node.js');
const serveGrip = new ServeGrip({
  grip: { control_uri: `${hook}/grip`, control_iss: 'site', key: 'secret' },
  gripProxyRequired: true,
});

async function body(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}

const site = createServer(async (request, response) => {
  if (!(await serveGrip.run(request, response))) return;
  response.setHeader('Content-Type', 'text/plain');
  switch (request.url) {
    case '/poll': {
      const instruct = response.grip.startInstruct();
      instruct.addChannel('room');
      instruct.setHoldLongPoll(50);
      return response.end('nothing\n');
    }
    case '/stream': {
      const instruct = response.grip.startInstruct();
      instruct.addChannel('room');
      instruct.setHoldStream();
      return response.end('begin\n');
    }
    case '/send': {
      const text = await body(request);
      const formats = [
        new HttpResponseFormat({ body: text }),
        new HttpStreamFormat(text),
        new WebSocketMessageFormat(text),
      ];
      await serveGrip.getPublisher().publish('room', new Item(formats));
      return response.end('Published\n');
    }
    case '/chat': {
      const { wsContext } = request.grip;
      if (wsContext.isOpening()) {
        wsContext.accept();
        wsContext.subscribe('room');
      }
      while (wsContext.canRecv()) {
        const message = wsContext.recv();
        if (message === null) {
          wsContext.close();
          break;
        }
        wsContext.send(`echo ${message}`);
      }
      return response.end();
    }
  }
});
site.listen(port, '127.0.0.1', () => console.error('listening'));
