import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Browser, Page } from 'playwright-core'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { skipped } from '../shared.ts'
import type { PageChecks } from './browser-page.ts'
import { wasmHash } from './portable.ts'

/** The registry, training and failure on WebGPU in a page of Chromium, on its software adapter; and WASM there, bit by bit. */

const NAME = 'WebGPU in Chromium'
const chromium = [process.env.CHROMIUM, '/usr/bin/chromium'].find((path) => path !== undefined && existsSync(path))
const FLAGS = [
  '--no-sandbox',
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--disable-background-networking',
  '--disable-component-update',
  '--no-first-run',
]

/** Page and worker as a browser loads them, in a folder of their own. */
const bundle = async (folder: string): Promise<void> => {
  const { build } = await import('esbuild')
  await build({
    bundle: true,
    format: 'esm',
    target: 'es2022',
    platform: 'browser',
    splitting: true,
    external: ['node:*'],
    logLevel: 'warning',
    entryPoints: ['page', 'worker'].map((name) => fileURLToPath(new URL(`browser-${name}.js`, import.meta.url))),
    outdir: folder,
  })
}

const HTML = '<!doctype html><title>checks</title><script type="module" src="browser-page.js"></script>'
const ISOLATED = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' }

/** Serves a folder twice: under /isolated/ with the headers that allow shared memory, under /plain/ without. */
const serve = async (folder: string) => {
  const server = createServer(({ url = '/' }, response) => {
    const [, kind = '', name = ''] = /^\/(isolated|plain)\/(.*)$/.exec(url) ?? []
    const file = join(folder, normalize(`/${name}`))
    const headers = kind === 'isolated' ? ISOLATED : {}
    if (name === '') response.writeHead(200, { ...headers, 'Content-Type': 'text/html' }).end(HTML)
    else if (existsSync(file))
      response.writeHead(200, { ...headers, 'Content-Type': 'text/javascript' }).end(readFileSync(file))
    else response.writeHead(404).end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { server, address: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

if (chromium === undefined) skipped(NAME, 'there is no Chromium (/usr/bin/chromium, or CHROMIUM)')
else {
  const folder = mkdtempSync(join(tmpdir(), 'mixtrain-page-'))
  const { server, address } = await serve(folder)
  let browser: Browser | undefined
  const pages: Partial<Record<'isolated' | 'plain', Page>> = {}
  const complaints: string[] = []

  const open = async (kind: 'isolated' | 'plain'): Promise<Page> => {
    const page = await (browser as Browser).newPage()
    page.on('pageerror', (e) => complaints.push(String(e)))
    await page.goto(`${address}/${kind}/`)
    await page.waitForFunction(() => 'checks' in globalThis)
    return page
  }

  /** Calls a check in the page. */
  const inPage = <K extends keyof PageChecks>(
    kind: 'isolated' | 'plain',
    name: K,
    ...args: Parameters<PageChecks[K]>
  ): Promise<Awaited<ReturnType<PageChecks[K]>>> =>
    (pages[kind] as Page).evaluate(
      ([n, a]) =>
        (globalThis as unknown as { readonly checks: Record<string, (...x: unknown[]) => unknown> }).checks[n](...a),
      [name, args] as [string, unknown[]],
    ) as Promise<Awaited<ReturnType<PageChecks[K]>>>

  test.before(async () => {
    await bundle(folder)
    const playwright = await import('playwright-core')
    browser = await playwright.chromium.launch({ executablePath: chromium, args: FLAGS })
    pages.isolated = await open('isolated')
    pages.plain = await open('plain')
  })
  test.after(async () => {
    await browser?.close()
    server.closeAllConnections()
    server.close()
    rmSync(folder, { recursive: true, force: true })
  })

  test('an adapter answers and computes; auto prefers WASM to a software adapter', async () => {
    const adapter = await inPage('isolated', 'adapter')
    assert.ok(adapter.works, adapter.about)
    console.log(`\n${NAME}: ${adapter.about}`)
    const auto = await inPage('isolated', 'auto')
    if (/software/.test(adapter.about)) {
      assert.is(auto.name, 'wasm')
      assert.match(auto.reason, 'software adapter')
    }
  })

  test('every op of the registry, and its gradients, agree with the reference', async () => {
    const { ops, examples, wrong, live } = await inPage('isolated', 'registry')
    console.log(`\n${NAME}: ${ops} ops, ${examples} examples, values and gradients, ${wrong.length} wrong`)
    assert.equal(wrong, [])
    assert.ok(ops >= 40 && examples >= ops)
    assert.is(live, 0)
  })

  test('twenty MixTrain steps give the losses of WASM to 1e-3', async () => {
    const { webgpu, again, wasm, live } = await inPage('isolated', 'twenty')
    assert.is(webgpu.length, 40)
    assert.equal(again, webgpu.slice(0, again.length), 'one device gives the same bits twice')
    webgpu.forEach((v, i) => {
      assert.ok(Math.abs(v - wasm[i]) < 1e-3 * Math.max(1, wasm[i]), `loss ${i}: ${v} on WebGPU, ${wasm[i]} on WASM`)
    })
    assert.is(live, 0)
  })

  test('device.destroy() in mid-training: the run ends on WASM', async () => {
    const { devices, failures, far } = await inPage('isolated', 'survival')
    assert.equal(devices, ['webgpu', 'wasm'])
    assert.is(failures, 1)
    assert.ok(far < 1e-3, `${far}`)
  })

  test('WASM gives the bits of Node: on the page, in a worker on two threads, with and without isolation', async () => {
    assert.is(await inPage('isolated', 'isolated'), true)
    assert.is(await inPage('plain', 'isolated'), false)
    const { hash } = await wasmHash(1)
    assert.equal(await wasmHash(2), { hash, threads: 2 })
    assert.equal(await inPage('isolated', 'hash', 1), { hash, threads: 1 })
    assert.equal(await inPage('isolated', 'hashInWorker', 2), { hash, threads: 2 })
    assert.equal(await inPage('plain', 'hash', 2), { hash, threads: 1 })
    assert.equal(await inPage('plain', 'hashInWorker', 2), { hash, threads: 1 })
  })

  test('the pages complained of nothing', () => {
    assert.equal(complaints, [])
  })
}

test.run()
