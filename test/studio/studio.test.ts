import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { type IncomingHttpHeaders, request } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { device } from '../../src/backend/device.ts'
import { key } from '../../src/core/key.ts'
import { take } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { encodeModel } from '../../src/format/model.ts'
import { networks } from '../../src/nn/networks.ts'
import { fit } from '../../src/train/quick.ts'
import { root, skipped } from '../shared.ts'

// The page in a real browser: what it shows is compared with what `mixtrain bounds` prints.

const chromium = [process.env.CHROMIUM, '/usr/bin/chromium'].find((path) => path !== undefined && existsSync(path))
const main = join(root, 'dist/src/cli/main.js')
const QUIET = ['--no-sandbox', '--disable-background-networking', '--disable-component-update', '--no-first-run']
const GPU = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader']

const folder = mkdtempSync(join(tmpdir(), 'mixtrain-studio-'))
const built = join(folder, 'site')
const starter = join(folder, 'starter.safetensors')
/** What every test must leave behind. */
const ends: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })]

/** One short epoch, so that the starter is no random network. */
const makeStarter = async (): Promise<void> => {
  const data = await digits()
  const network = networks.small({ input: data.train.shape, classes: data.train.classes })
  const backend = await device({ device: 'wasm' })
  try {
    const options = { network, data: { train: take(400)(data.train) }, epsilon: 0.02, epochs: 1, batchSize: 20 }
    let parameters = network.init(key(0))
    for await (const epoch of fit({ ...options, attack: undefined })(backend))
      parameters = epoch.checkpoint.state.parameters
    const provenance = { epsilon: 0.02, loss: 'mixtrain', seed: 0, arithmetic: 'exact' } as const
    writeFileSync(starter, encodeModel({ network, parameters, provenance }))
  } finally {
    backend.dispose()
  }
}

const node = (...args: readonly string[]): string => {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${args.join(' ')} ended with ${status}: ${stderr}${stdout}`)
  return stdout
}

/** The address of a server of the built page. */
const serve = async (...options: readonly string[]): Promise<string> => {
  const server = spawn(
    process.execPath,
    ['tools/serve-studio.js', '--no-build', '--folder', built, '--port', '0', ...options],
    {
      cwd: root,
    },
  )
  ends.push(() => server.kill())
  return new Promise((resolve, reject) => {
    server.stdout.on('data', (text) => resolve(/http\S+/.exec(String(text))?.[0] ?? ''))
    server.on('exit', (code) => reject(new Error(`the server ended with ${code}`)))
  })
}

const launch = async (...args: readonly string[]): Promise<Browser> => {
  const playwright = await import('playwright-core')
  const browser = await playwright.chromium.launch({ executablePath: chromium as string, args: [...QUIET, ...args] })
  ends.push(() => browser.close())
  return browser
}

interface Opened {
  readonly page: Page
  /** What the console complained about. */
  readonly complaints: readonly string[]
}

const open = async (
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
  prepare: (page: Page) => Promise<unknown> = async () => undefined,
): Promise<Opened> => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(60_000)
  const complaints: string[] = []
  page.on('console', (m) => m.type() === 'error' && complaints.push(m.text()))
  page.on('pageerror', (e) => complaints.push(String(e)))
  await prepare(page)
  await page.goto(url)
  await settled(page)
  return { page, complaints }
}

const text = async (page: Page, selector: string): Promise<string> => (await page.textContent(selector)) ?? ''

/** Waits until the last question is answered, attack included. */
const settled = (page: Page): Promise<unknown> =>
  page.waitForFunction(() => {
    const [verdict, why] = [document.querySelector('#verdict'), document.querySelector('#verdict-why')]
    return verdict?.classList.contains('waiting') === false && !/Attacking/.test(why?.textContent ?? '')
  })

/** Changes something and waits for new bounds: those shown before are marked, and gone when others are drawn. */
const asked = async (page: Page, change: () => Promise<unknown>): Promise<void> => {
  await page.evaluate(() => {
    for (const cell of document.querySelectorAll<HTMLElement>('#intervals td[data-value]')) cell.dataset.value = 'old'
  })
  await change()
  await page.waitForFunction(() => document.querySelector('#intervals td[data-value="old"]') === null)
  await settled(page)
}

/** The numbers behind the table: one list for each of lower, logit, upper and margin. */
const shown = (page: Page): Promise<number[][]> =>
  page.evaluate(() => {
    const rows = [...document.querySelectorAll('#intervals tbody tr')]
    return [0, 1, 2, 3].map((i) =>
      rows.map((row) => Number(row.querySelectorAll<HTMLElement>('td[data-value]')[i]?.dataset.value)),
    )
  })

interface Printed {
  readonly label: readonly number[]
  readonly logits: readonly number[][]
  readonly lower: readonly number[][]
  readonly upper: readonly number[][]
  readonly margin: readonly number[][]
}

/** The page shows, number by number, what the command prints. */
const sameAsCommand = async (
  page: Page,
  model: string,
  index: number,
  epsilon: number,
  method: string,
): Promise<void> => {
  const about = [
    '--index',
    String(index),
    '--epsilon',
    String(epsilon),
    '--method',
    method,
    '--device',
    'wasm',
    '--json',
  ]
  const printed = JSON.parse(node(main, 'bounds', model, ...about)) as Printed
  const [lower, logits, upper, margin] = await shown(page)
  assert.equal(logits, printed.logits[0], `${method}: logits`)
  assert.equal(lower, printed.lower[0], `${method}: lower`)
  assert.equal(upper, printed.upper[0], `${method}: upper`)
  const label = printed.label[0]
  assert.equal(
    margin.filter((_, j) => j !== label),
    printed.margin[0],
    `${method}: margins`,
  )
  const certified = printed.margin[0].every((m) => m > 0)
  assert.is(/certified/.test((await page.getAttribute('#verdict', 'class')) ?? ''), certified)
}

const train = async (
  page: Page,
  s: { images: number; epochs: number; epsilon: number; device: string },
): Promise<void> => {
  await page.selectOption('#images', String(s.images))
  await page.fill('#epochs', String(s.epochs))
  await page.fill('#train-epsilon', String(s.epsilon))
  await page.selectOption('#device', s.device)
  await page.click('#go')
}

const rowsOf = (page: Page): Promise<string[][]> =>
  page.evaluate(() =>
    [...document.querySelectorAll('#epochs-table tbody tr')].map((row) =>
      // Without the seconds.
      [...row.children].slice(0, -1).map((cell) => cell.textContent ?? ''),
    ),
  )

const epochs = (page: Page, count: number): Promise<unknown> =>
  page.waitForFunction((n) => document.querySelectorAll('#epochs-table tbody tr').length >= n, count)

const finished = async (page: Page): Promise<void> => {
  await page.waitForFunction(
    () => /^(Finished|Failed)/.test(document.querySelector('#progress-text')?.textContent ?? ''),
    null,
    {
      timeout: 120_000,
    },
  )
  assert.match(await text(page, '#progress-text'), /^Finished/, await text(page, '#notices'))
}

/** Lets a test reach into the worker: it runs what is posted on this channel. */
const reachable = (setup: string) => (page: Page) =>
  page.route('**/worker.js', async (route) => {
    const response = await route.fetch()
    await route.fulfill({ response, body: `${setup}\n${await response.text()}` })
  })
const poke = (page: Page): Promise<void> => page.evaluate(() => new BroadcastChannel('test').postMessage('now'))

const reason =
  'Deno' in globalThis
    ? 'the browser is driven from Node'
    : chromium === undefined
      ? 'there is no chromium (apt-get install chromium, or CHROMIUM=path)'
      : undefined
if (reason !== undefined) {
  rmSync(folder, { recursive: true, force: true })
  test('the studio page is tested where a browser can be driven', () => skipped('the studio page', reason))
} else {
  let browser: Browser
  let url: string
  test.before(async () => {
    await makeStarter()
    node('tools/build-studio.js', '--output', built, '--starter', starter)
    browser = await launch()
    url = await serve()
  })
  test.after(async () => {
    for (const end of ends.reverse()) await end()
  })

  test('the page loads without complaints, on threads, and shows what mixtrain bounds prints', async () => {
    const { page, complaints } = await open(browser, url)
    assert.is(await page.evaluate(() => globalThis.crossOriginIsolated), true)
    assert.match(await text(page, '#origin'), /starter, trained by MixTrain for ε = 0.02/)
    await asked(page, () => page.fill('#epsilon', '0.02'))
    for (const method of ['ibp', 'crown-ibp', 'crown', 'symbolic']) {
      await asked(page, () => page.selectOption('#method', method))
      await sameAsCommand(page, starter, 0, 0.02, method)
    }
    await asked(page, () => page.click('#strip button:nth-child(8)'))
    await sameAsCommand(page, starter, 7, 0.02, 'symbolic')
    await page.click('#next')
    await asked(page, () => page.click('#strip button:nth-child(3)'))
    await sameAsCommand(page, starter, 22, 0.02, 'symbolic')
    assert.equal(complaints, [])
    await page.context().close()
  })

  test('the content security policy holds: nothing of the page or its workers breaks it, and nothing inline or foreign runs', async () => {
    for (const address of [url, await serve('--no-isolation')]) {
      const broken: string[] = []
      const { page } = await open(browser, address, {}, async (p) => {
        p.on('console', (m) => /Content Security Policy/i.test(m.text()) && broken.push(m.text()))
        await p.addInitScript(() => {
          const seen: string[] = []
          Object.assign(globalThis, { violations: seen })
          document.addEventListener('securitypolicyviolation', (e) =>
            seen.push(`${e.violatedDirective} ${e.blockedURI}`),
          )
        })
      })
      await asked(page, () => page.fill('#epsilon', '0.02'))
      await train(page, { images: 500, epochs: 1, epsilon: 0.01, device: 'wasm' })
      await finished(page)
      const violations = () => page.evaluate(() => (globalThis as unknown as { violations: string[] }).violations)
      assert.equal([broken, await violations()], [[], []])
      // What an injected text could try.
      const ran = await page.evaluate(async () => {
        const tried: Record<string, boolean> = {}
        const script = document.createElement('script')
        script.textContent = 'globalThis.inline = true'
        document.body.append(script)
        tried.inline = 'inline' in globalThis
        const div = document.createElement('div')
        div.innerHTML = '<p style="color: rgb(1, 2, 3)">x</p>'
        document.body.append(div)
        tried.style = getComputedStyle(div.firstElementChild as Element).color === 'rgb(1, 2, 3)'
        tried.connect = await fetch('https://example.com/').then(
          () => true,
          () => false,
        )
        const image = new Image()
        tried.image = await new Promise<boolean>((resolve) => {
          image.onload = () => resolve(true)
          image.onerror = () => resolve(false)
          image.src = 'https://example.com/x.png'
        })
        return tried
      })
      assert.equal(ran, { inline: false, style: false, connect: false, image: false })
      const after = [...new Set((await violations()).map((v) => v.split(' ')[0]))].sort()
      assert.equal(after, ['connect-src', 'img-src', 'script-src-elem', 'style-src-attr'])
      await page.context().close()
    }
  })

  test('the server answers to the names of this machine only, with files of its folder only', async () => {
    writeFileSync(join(folder, 'secret.txt'), 'secret')
    symlinkSync(join(folder, 'secret.txt'), join(built, 'link.txt'))
    const { port } = new URL(url)
    const ask = (path: string, host: string, method = 'GET') =>
      new Promise<{ status: number; headers: IncomingHttpHeaders; body: string }>((resolve, reject) => {
        const asking = request({ port, host: '127.0.0.1', path, method, headers: { host } }, (response) => {
          let body = ''
          response.setEncoding('utf8').on('data', (part) => {
            body += part
          })
          response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }))
        })
        asking.on('error', reject).end()
      })
    for (const host of [`127.0.0.1:${port}`, 'localhost', 'LOCALHOST:9000', `[::1]:${port}`])
      assert.is((await ask('/', host)).status, 200, host)
    for (const host of [
      'evil.example',
      `evil.example:${port}`,
      'localhost.evil.example',
      '127.0.0.1.evil.example',
      '127.0.0.2',
      'user@localhost',
      'localhost:x',
    ])
      assert.is((await ask('/', host)).status, 421, host)
    assert.is((await ask(`http://evil.example/`, 'localhost')).status, 421)
    for (const path of [
      '/link.txt',
      '/../secret.txt',
      '/%2e%2e/secret.txt',
      '/..%2fsecret.txt',
      '/%00',
      '/%',
      '//etc/passwd',
      '/parts',
    ])
      assert.is((await ask(path, 'localhost')).status, 404, path)
    assert.is((await ask('/', 'localhost', 'POST')).status, 405)
    // As bytes: what is no request has the headers of the others all the same.
    const raw = (text: string) =>
      new Promise<string>((resolve, reject) => {
        let answer = ''
        const socket = connect(Number(port), '127.0.0.1', () => socket.write(text))
        socket.setEncoding('utf8').on('data', (part) => {
          answer += part
        })
        socket.on('close', () => resolve(answer)).on('error', reject)
      })
    for (const [status, text] of [
      [400, 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n'],
      [400, 'GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n'],
      [400, 'no request\r\n\r\n'],
      [431, `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(70_000)}\r\n\r\n`],
    ] as const) {
      const answer = await raw(text)
      assert.ok(answer.startsWith(`HTTP/1.1 ${status} `), answer.slice(0, 40))
      assert.match(answer, /content-security-policy: default-src 'none'/i)
    }
    const { headers } = await ask('/worker.js', 'localhost')
    const policy = headers['content-security-policy'] ?? ''
    assert.not.match(String(policy), /unsafe-(inline|eval)(?<!wasm-unsafe-eval)|\*|https?:/)
    assert.match(String(policy), /default-src 'none'.*frame-ancestors 'none'/)
    assert.is(headers['x-content-type-options'], 'nosniff')
  })

  test('an adversarial example lies in the box and is taken for another digit', async () => {
    const { page } = await open(browser, url)
    await asked(page, () => page.fill('#epsilon', '0.3'))
    assert.match((await page.getAttribute('#verdict', 'class')) ?? '', /broken|misclassified/)
    for (let i = 1; i <= 20 && !/broken/.test((await page.getAttribute('#verdict', 'class')) ?? ''); i++)
      await asked(page, () => page.click(`#strip button:nth-child(${i})`))
    const [before, after] = await page.evaluate(() =>
      ['seen', 'adversarial'].map((id) => {
        const canvas = document.getElementById(id) as HTMLCanvasElement
        const { data } = canvas.getContext('2d')?.getImageData(0, 0, 28, 28) as ImageData
        return Array.from({ length: 784 }, (_, i) => data[4 * i])
      }),
    )
    const change = Math.max(...before.map((v, i) => Math.abs(v - after[i])))
    assert.ok(change > 0 && change <= Math.ceil(0.3 * 255) + 1, `largest change ${change} of 255`)
    assert.match(await text(page, '#verdict-word'), /it can become an? \d/)
    assert.is.not(await text(page, '#adversarial-word'), await text(page, '#seen-word'))
    await page.context().close()
  })

  test('training on WebAssembly passes 50 % VRA, pauses, and its model is that of mixtrain bounds', async () => {
    const { page, complaints } = await open(browser, url)
    const begun = performance.now()
    await train(page, { images: 1000, epochs: 4, epsilon: 0.03, device: 'wasm' })
    await page.waitForFunction(() => /training [1-9]/.test(document.querySelector('#progress-text')?.textContent ?? ''))
    await page.click('#go')
    assert.is(await text(page, '#go'), 'Continue')
    await page.waitForTimeout(400)
    const held = await text(page, '#progress-text')
    // Bounds are answered while training is paused, and while it runs.
    await asked(page, () => page.fill('#epsilon', '0.05'))
    assert.is(await text(page, '#progress-text'), held)
    await page.click('#go')
    await asked(page, () => page.fill('#epsilon', '0.03'))
    await finished(page)
    const seconds = (performance.now() - begun) / 1000
    const vra = Number.parseFloat(await text(page, '#vra'))
    console.log(`\nstudio: VRA ${vra} % at 0.03 after 4 epochs of 1,000 images, ${seconds.toFixed(1)} s`)
    assert.ok(vra > 50, `VRA ${vra} %`)
    assert.ok(vra <= Number.parseFloat(await text(page, '#era')))
    assert.is(await page.locator('#rates polyline').count(), 3)
    await settled(page)
    assert.match(await text(page, '#origin'), /yours, after epoch 4 of 4/)
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#download')])
    assert.is(download.suggestedFilename(), 'mixtrain-small.safetensors')
    const model = join(folder, 'trained.safetensors')
    await download.saveAs(model)
    await asked(page, () => page.click('#strip button:nth-child(2)'))
    await sameAsCommand(page, model, 1, 0.03, 'symbolic')
    // And back: the file can be opened again.
    const { page: other } = await open(browser, url)
    await asked(other, () => other.setInputFiles('#file', model))
    assert.match(await text(other, '#origin'), /small from trained.safetensors, trained for ε = 0.03/)
    writeFileSync(join(folder, 'wrong.safetensors'), readFileSync(model).subarray(0, 1000))
    await other.setInputFiles('#file', join(folder, 'wrong.safetensors'))
    await other.waitForSelector('.notice.error')
    assert.match(await text(other, '.notice.error'), /Not opened: wrong.safetensors/)
    assert.equal(complaints, [])
    await page.context().close()
    await other.context().close()
  })

  test('without isolation and without WebGPU it computes on one thread, and says so', async () => {
    const { page, complaints } = await open(browser, await serve('--no-isolation'))
    assert.is(await page.evaluate(() => globalThis.crossOriginIsolated), false)
    assert.match(await text(page, '#machine'), /1 thread \(this host does not isolate the page.*no WebGPU/)
    assert.is(await page.locator('#device option[value=webgpu]').isDisabled(), true)
    await asked(page, () => page.fill('#epsilon', '0.02'))
    await sameAsCommand(page, starter, 0, 0.02, 'symbolic')
    await train(page, { images: 500, epochs: 2, epsilon: 0.02, device: 'auto' })
    await epochs(page, 1)
    await page.click('#stop')
    await page.waitForFunction(() => /^Stopped/.test(document.querySelector('#progress-text')?.textContent ?? ''))
    assert.is(await text(page, '#go'), 'Continue')
    await page.click('#go')
    await finished(page)
    assert.is((await rowsOf(page)).length, 2)
    assert.equal(complaints, [])
    await page.context().close()
  })

  test('a worker that crashes is started again, and training goes on after its last epoch to the same numbers', async () => {
    const crash = reachable("new BroadcastChannel('test').onmessage = () => { throw new Error('made to crash') }")
    const { page } = await open(browser, url, {}, crash)
    const settings = { images: 500, epochs: 2, epsilon: 0.02, device: 'wasm' }
    await train(page, settings)
    await epochs(page, 1)
    await poke(page)
    await page.waitForSelector('.notice.warning')
    assert.match(await text(page, '.notice.warning'), /made to crash.*Press Continue to go on after epoch 1/)
    await asked(page, () => page.fill('#epsilon', '0.02'))
    assert.match(await text(page, '#origin'), /yours, after epoch 1 of 2/)
    await page.click('#go')
    await finished(page)
    const interrupted = await rowsOf(page)
    await train(page, settings)
    await page.waitForFunction(() => /^Epoch/.test(document.querySelector('#progress-text')?.textContent ?? ''))
    await finished(page)
    assert.equal(interrupted, await rowsOf(page))
    await page.context().close()
  })

  test('it can be used with the keyboard alone', async () => {
    const { page } = await open(browser, url, { reducedMotion: 'reduce' })
    const focused = () => page.evaluate(() => document.activeElement?.id ?? '')
    const tabTo = async (id: string) => {
      for (let i = 0; i < 30 && (await focused()) !== id; i++) await page.keyboard.press('Tab')
      assert.is(await focused(), id)
    }
    await tabTo('pad')
    await page.keyboard.press('Delete')
    assert.match(await text(page, '#verdict-word'), /empty/)
    // A vertical stroke, by pen down, arrows, pen up.
    await page.keyboard.press('Space')
    for (let i = 0; i < 15; i++) await page.keyboard.press('ArrowDown')
    await page.keyboard.press('Space')
    await settled(page)
    assert.match(await text(page, '#seen-word'), /an? \d/)
    await asked(page, () => page.keyboard.press('Shift+ArrowLeft'))
    for (
      let i = 0;
      i < 10 && (await page.evaluate(() => document.activeElement?.getAttribute('role'))) !== 'radio';
      i++
    )
      await page.keyboard.press('Tab')
    await asked(page, () => page.keyboard.press('ArrowRight'))
    assert.is(await page.getAttribute('#strip button:nth-child(2)', 'aria-checked'), 'true')
    await tabTo('epsilon')
    await asked(page, () => page.keyboard.press('Home'))
    await asked(page, () => page.keyboard.press('ArrowRight'))
    assert.is(await text(page, '#epsilon-value'), '0.005')
    await sameAsCommand(page, starter, 1, 0.005, 'symbolic')
    await tabTo('radius')
    await page.keyboard.press('Enter')
    await page.waitForFunction(() => /0\.\d|none/.test(document.querySelector('#radius-result')?.textContent ?? ''))
    await tabTo('images')
    await page.keyboard.press('Home')
    await tabTo('go')
    await page.keyboard.press('Enter')
    await page.waitForFunction(() => document.querySelector('#go')?.textContent === 'Pause')
    await tabTo('stop')
    await page.keyboard.press('Enter')
    await page.waitForFunction(() => /^Stopped/.test(document.querySelector('#progress-text')?.textContent ?? ''))
    // What a screen reader is told.
    await page.waitForFunction(() =>
      /certified|classified/i.test(document.querySelector('#verdict-live')?.textContent ?? ''),
    )
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll<HTMLElement>('button, select, input:not([hidden]), canvas[tabindex]')]
        .filter(
          (e) =>
            !e.closest('[hidden]') && !e.ariaLabel && !e.textContent?.trim() && !(e as HTMLInputElement).labels?.length,
        )
        .map((e) => e.outerHTML),
    )
    assert.equal(nameless, [])
    await page.context().close()
  })

  test('it fits windows from 360 pixels on; a finger draws', async () => {
    for (const width of [360, 390, 768, 1024, 1920]) {
      const touch = width < 500 ? { hasTouch: true, isMobile: true } : {}
      const { page } = await open(browser, url, { viewport: { width, height: 844 }, ...touch })
      const wide = await page.evaluate(() => document.documentElement.scrollWidth)
      assert.ok(wide <= width, `${wide} at ${width}`)
      if (width === 360) {
        await page.click('#clear')
        const box = await page.locator('#pad').boundingBox()
        if (box === null) throw new Error('the pad has no box')
        await asked(page, () => page.touchscreen.tap(box.x + box.width / 2, box.y + box.height / 2))
        assert.match(await text(page, '#seen-word'), /an? \d/)
      }
      await page.context().close()
    }
  })

  test('it trains on WebGPU, and survives the loss of the device', async () => {
    const gpu = await launch(...GPU)
    const lose = reachable(`{
      const { prototype } = GPUAdapter
      const request = prototype.requestDevice
      prototype.requestDevice = async function (...a) {
        const device = await request.apply(this, a)
        new BroadcastChannel('test').onmessage = () => device.destroy()
        return device
      }
    }`)
    const { page } = await open(gpu, url, {}, lose)
    if (/no WebGPU/.test(await text(page, '#machine'))) {
      skipped('the studio page on WebGPU', 'chromium has no software adapter here')
      return gpu.close()
    }
    await train(page, { images: 500, epochs: 1, epsilon: 0.02, device: 'webgpu' })
    const begun = performance.now()
    await page.waitForFunction(
      () => /training ([2-9]|\d\d)\//.test(document.querySelector('#progress-text')?.textContent ?? ''),
      null,
      {
        timeout: 120_000,
      },
    )
    console.log(
      `\nstudio: steps on ${await text(page, '#run-device')} after ${((performance.now() - begun) / 1000).toFixed(1)} s`,
    )
    assert.not.match(await text(page, '#run-device'), /WebAssembly/)
    await poke(page)
    await page.waitForSelector('.notice.warning')
    assert.match(await text(page, '.notice.warning'), /GPU stopped working .*lost.*goes on on WebAssembly from/)
    await finished(page)
    assert.match(await text(page, '#run-device'), /WebAssembly/)
    assert.is((await rowsOf(page)).length, 1)
    await gpu.close()
  })
}

test.run()
