import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BrowserContextOptions, Page } from 'playwright-core'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root, skipped } from '../shared.ts'

// What the page shows beside the verdict, in a real browser, and whether axe-core finds anything wrong with it.

const chromium = [process.env.CHROMIUM, '/usr/bin/chromium'].find((path) => path !== undefined && existsSync(path))
const reason =
  'Deno' in globalThis
    ? 'the browser is driven from Node'
    : chromium === undefined
      ? 'there is no chromium (apt-get install chromium, or CHROMIUM=path)'
      : undefined

const node = (...args: readonly string[]) => spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' })

if (reason !== undefined) test('the panels of the studio', () => skipped('the panels of the studio', reason))
else {
  const folder = mkdtempSync(join(tmpdir(), 'mixtrain-panels-'))
  const built = join(folder, 'site')
  const ends: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })]
  let url = ''
  let newPage: (options: BrowserContextOptions, at?: string) => Promise<Page>

  test.before(async () => {
    const made = node('tools/build-studio.js', '--output', built)
    assert.is(made.status, 0, made.stderr)
    const server = spawn(process.execPath, ['tools/serve-studio.js', '--no-build', '--folder', built, '--port', '0'], {
      cwd: root,
    })
    ends.push(() => server.kill())
    url = await new Promise<string>((resolve) => {
      server.stdout.on('data', (text) => resolve(/http\S+/.exec(String(text))?.[0] ?? ''))
    })
    const playwright = await import('playwright-core')
    const browser = await playwright.chromium.launch({ executablePath: chromium as string, args: ['--no-sandbox'] })
    ends.push(() => browser.close())
    newPage = async (options, at = '') => {
      const page = await (await browser.newContext(options)).newPage()
      page.setDefaultTimeout(120_000)
      await page.goto(url + at)
      await page.locator('#compare').scrollIntoViewIfNeeded()
      await page.waitForSelector('#layers tbody tr')
      return page
    }
  })
  test.after(async () => {
    for (const end of ends.reverse()) await end()
  })

  const text = async (page: Page, selector: string): Promise<string> => (await page.textContent(selector)) ?? ''

  test('two networks, five methods and the layers are compared, and the test slice is measured in both', async () => {
    const page = await newPage({ viewport: { width: 1280, height: 900 } })
    const least = await page.evaluate(() =>
      [...document.querySelectorAll('#margins tbody tr')].map((row) =>
        Number(row.querySelector('td')?.textContent?.replace('−', '-')),
      ),
    )
    assert.is(least.length, 5)
    const [ibp, crownIbp, symbolic, crown, alpha] = least
    // Loosest first; alpha-CROWN takes no worse slopes than CROWN's, intervals are the worst of all here.
    assert.ok(ibp < crownIbp && crownIbp <= crown && ibp < symbolic && crown <= alpha + 0.01, String(least))
    assert.equal(
      await page.evaluate(() => [...document.querySelectorAll('#layers tbody th')].map((c) => c.textContent)),
      ['relu1.input', 'relu2.input', 'relu3.input', 'output'],
    )
    assert.is(await text(page, '#pair-opened-verdict'), 'certified')
    assert.is.not(await text(page, '#pair-natural-verdict'), 'certified')
    await page.click('#measure')
    await page.waitForFunction(() => /The first 100/.test(document.querySelector('#slice-text')?.textContent ?? ''))
    const rate = async (id: string) => Number.parseFloat(await text(page, `#pair-${id}`))
    for (const slot of ['opened', 'natural']) {
      const [acc, era, vra] = [await rate(`${slot}-acc`), await rate(`${slot}-era`), await rate(`${slot}-vra`)]
      assert.ok(acc >= era && era >= vra, `${slot}: ${acc} ${era} ${vra}`)
    }
    assert.ok((await rate('opened-vra')) > 60 && (await rate('natural-vra')) < 10)
    await page.context().close()
  })

  test('a proof of the verdict is written, checked in the page, and downloaded files are what mixtrain check takes', async () => {
    const page = await newPage({})
    await page.click('#prove')
    await page.waitForSelector('.proof-checked')
    assert.match(await text(page, '#prove-text'), /no change of up to 0.1 per pixel makes this image anything but 3/)
    const files = ['proof', 'network'].map((name) => join(folder, name))
    for (const [i, button] of ['#save-proof', '#save-network'].entries()) {
      const [download] = await Promise.all([page.waitForEvent('download'), page.click(button)])
      await download.saveAs(files[i])
    }
    const checked = node(join(root, 'dist/src/cli/main.js'), 'check', files[0], '--model', files[1])
    assert.is(checked.status, 0, checked.stdout + checked.stderr)
    // A byte of the network that is another.
    const other = new Uint8Array(readFileSync(files[1]))
    other[other.length - 200] ^= 1
    const given = [
      { name: 'image.proof.gz', mimeType: '', buffer: readFileSync(files[0]) },
      { name: 'network.onnx', mimeType: '', buffer: Buffer.from(other) },
    ]
    await page.setInputFiles('#check-file', given)
    await page.waitForSelector('.proof-refused')
    assert.match(await text(page, '#prove-text'), /Refused/)
    await page.context().close()
  })

  test('a link carries image, epsilon, method and how to train; a picture is taken as a drawing', async () => {
    const asked = '#image=23&epsilon=0.05&method=crown&train-loss=sabr&train-epochs=3'
    const page = await newPage({}, asked)
    assert.is(await text(page, '#epsilon-value'), '0.050')
    assert.equal(await page.inputValue('#method'), 'crown')
    assert.equal([await page.inputValue('#loss'), await page.inputValue('#epochs')], ['sabr', '3'])
    assert.is(await page.getAttribute('#strip [data-index="23"]', 'aria-checked'), 'true')
    // A dark 1 on paper.
    const png = await page.evaluate(async () => {
      const canvas = new OffscreenCanvas(200, 300)
      const at = canvas.getContext('2d') as OffscreenCanvasRenderingContext2D
      at.fillStyle = '#f4efe6'
      at.fillRect(0, 0, 200, 300)
      at.fillStyle = '#222'
      at.fillRect(90, 60, 22, 180)
      return [...new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer())]
    })
    await page.setInputFiles('#picture-file', { name: 'one.png', mimeType: 'image/png', buffer: Buffer.from(png) })
    await page.waitForFunction(() => document.querySelector('#seen-word')?.textContent === 'a 1')
    await page.waitForFunction(() => /drawing=/.test(location.hash))
    const there = await newPage({}, new URL(page.url()).hash)
    assert.is(await text(there, '#seen-word'), 'a 1')
    const shown = (p: Page) =>
      p.evaluate(() =>
        [...document.querySelectorAll<HTMLElement>('#intervals td[data-value]')].map((c) => c.dataset.value),
      )
    await page.waitForSelector('#margins:not(.stale)')
    assert.equal(await shown(there), await shown(page))
    await there.context().close()
    await page.context().close()
  })

  test('axe-core finds no violation, on a desktop and on a phone, light and dark', async () => {
    const axe = readFileSync(join(root, 'node_modules/axe-core/axe.min.js'), 'utf8')
    for (const [width, colorScheme] of [
      [1280, 'light'],
      [1280, 'dark'],
      [390, 'light'],
      [390, 'dark'],
    ] as const) {
      const page = await newPage({ viewport: { width, height: 844 }, colorScheme, bypassCSP: true })
      await page.evaluate(() => {
        for (const d of document.querySelectorAll('details')) d.open = true
      })
      // Nothing is wider than the page, or than the card that it is in, also where all is opened.
      const wide = await page.evaluate(() =>
        [document.documentElement, ...document.querySelectorAll('.card')]
          .filter((e) => e.scrollWidth > e.clientWidth)
          .map((e) => e.id || e.tagName),
      )
      assert.equal(wide, [], `${width} ${colorScheme}`)
      await page.addScriptTag({ content: axe })
      const found = await page.evaluate(() =>
        (
          globalThis as unknown as { axe: { run: () => Promise<{ violations: { id: string; nodes: unknown[] }[] }> } }
        ).axe
          .run()
          .then(({ violations }) => violations.map(({ id, nodes }) => `${id} ${JSON.stringify(nodes).slice(0, 300)}`)),
      )
      assert.equal(found, [], `${width} ${colorScheme}`)
      await page.context().close()
    }
  })
}

test.run()
