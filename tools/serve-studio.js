// Builds the studio and serves it on this machine only, with the two headers that let a page share memory between threads, and its content
// security policy as a header, too, which workers are under as well.
//
//   npm run studio [-- --port 8080] [--no-isolation] [--no-build] [--folder DIR]
import { createReadStream, existsSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, resolve, sep } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createGzip } from 'node:zlib'

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.txt': 'text/plain; charset=utf-8',
  '.safetensors': 'application/octet-stream',
}
const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
}

const fail = (message) => {
  process.stderr.write(`${message}\n`)
  process.exit(2)
}
const options = {
  port: { type: 'string', default: '8765' },
  'no-isolation': { type: 'boolean', default: false },
  'no-build': { type: 'boolean', default: false },
  folder: { type: 'string' },
}
const given = () => {
  try {
    return parseArgs({ options }).values
  } catch (e) {
    return fail(`studio: ${e.message}. Options: --port NUMBER, --no-isolation, --no-build, --folder DIR`)
  }
}
const values = given()
const port = Number(values.port)
if (!(Number.isInteger(port) && port >= 0 && port < 65536)) fail(`--port must be a port number, not ${values.port}`)
const folder = resolve(values.folder ?? fileURLToPath(new URL('../dist/site', import.meta.url)))
if (!values['no-build']) {
  const { buildStudio } = await import('./build-studio.js')
  await buildStudio({ output: folder, types: false }).catch((e) => fail(e.message))
} else if (!existsSync(join(folder, 'index.html'))) fail(`${folder} has no index.html: leave --no-build out`)

/** The policy of the page, which says it itself, for hosts that send no headers; what only a header may say comes here. */
const policy = /http-equiv="Content-Security-Policy" content="([^"]+)"/.exec(
  readFileSync(new URL('../studio/index.html', import.meta.url), 'utf8'),
)?.[1]
if (policy === undefined) fail('studio/index.html has no content security policy')

const HEADERS = {
  'Cache-Control': 'no-cache',
  'Content-Security-Policy': `${policy}; frame-ancestors 'none'`,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  ...(values['no-isolation'] ? {} : ISOLATION),
}

const root = realpathSync(folder)

/** The file that a request means, or undefined: nothing outside the folder, also by a link. */
const fileOf = (url) => {
  try {
    const path = decodeURIComponent(new URL(url, 'http://localhost').pathname)
    const file = realpathSync(resolve(root, `.${path.endsWith('/') ? `${path}index.html` : path}`))
    return file.startsWith(root + sep) && statSync(file).isFile() ? file : undefined
  } catch {
    return undefined
  }
}

/** The names of this machine for itself, with any port (it may be forwarded). Under another name, a page of a stranger would be of our origin. */
const LOCAL = /^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/i

const server = createServer({ requireHostHeader: false }, (request, response) => {
  const refuse = (status, text, headers = {}) =>
    response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8', ...HEADERS, ...headers }).end(text)
  // Node takes the first of two names, which another reader on the way need not.
  const names = request.rawHeaders.filter((name, i) => i % 2 === 0 && /^host$/i.test(name))
  if (names.length !== 1) return refuse(400, 'a request names one host\n')
  if (!LOCAL.test(request.headers.host ?? '') || !request.url?.startsWith('/'))
    return refuse(421, `this is http://127.0.0.1:${server.address().port}/, and goes by no other name\n`)
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return refuse(405, 'GET and HEAD only\n', { Allow: 'GET, HEAD' })
  const file = fileOf(request.url)
  if (file === undefined) return refuse(404, 'not found\n')
  const type = TYPES[extname(file)] ?? 'application/octet-stream'
  // Text is packed on its way, to half of what a first visit takes; models are packed already.
  const packed = type.startsWith('text/') && /\bgzip\b/.test(String(request.headers['accept-encoding']))
  const length = packed ? { 'Content-Encoding': 'gzip' } : { 'Content-Length': statSync(file).size }
  response.writeHead(200, { 'Content-Type': type, Vary: 'Accept-Encoding', ...length, ...HEADERS })
  if (request.method === 'HEAD') return response.end()
  const content = createReadStream(file).on('error', () => response.destroy())
  if (packed) content.pipe(createGzip()).pipe(response)
  else content.pipe(response)
})
// What is no request, or too long for one, is answered before there is a response to write to.
server.on('clientError', (e, socket) => {
  if (!socket.writable) return socket.destroy()
  const status = e.code === 'HPE_HEADER_OVERFLOW' ? '431 Request Header Fields Too Large' : '400 Bad Request'
  const lines = Object.entries({ ...HEADERS, 'Content-Length': 0, Connection: 'close' }).map(([k, v]) => `${k}: ${v}`)
  socket.end([`HTTP/1.1 ${status}`, ...lines, '', ''].join('\r\n'))
})
server.on('error', (e) =>
  fail(e.code === 'EADDRINUSE' ? `port ${port} is in use: choose another with --port` : e.message),
)
server.listen(port, '127.0.0.1', () => {
  process.stdout.write(`studio: http://127.0.0.1:${server.address().port}/\n`)
})
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0))
