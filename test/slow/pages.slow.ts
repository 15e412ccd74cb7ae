import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { build } from 'esbuild'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { mixtrain } from '../cli/run.ts'
import { compile, type Example, examples, inFolder, print, run } from '../pages.ts'
import { root, skipped } from '../shared.ts'

/** The programs of the README are tried by its own test, those of the other two pages below: one reads a model, the others need a browser. */
const elsewhere = ['README.md', 'docs/fine-tune.md', 'docs/in-the-browser.md']
const of = (page: string): readonly Example[] => examples.filter((example) => example.page === page)

test('the programs of the manual print what stands below them', () =>
  print(examples.filter(({ page }) => !elsewhere.includes(page))))

test('the program that goes on with a model prints what stands below it, from the model of the command that stands there', () =>
  inFolder(async (folder) => {
    const [{ code, output }] = of('docs/fine-tune.md')
    const [, command] =
      /\nnpx mixtrain (train --loss natural .*)\n/.exec(readFileSync(join(root, 'docs/fine-tune.md'), 'utf8')) ?? []
    const made = await mixtrain(command.split(' '), folder)
    assert.is(made.code, 0, made.err)
    const file = join(folder, 'tuned.mts')
    writeFileSync(file, code)
    compile([file])
    assert.is(await run(file, folder), output)
  }))

const chromium = [process.env.CHROMIUM, '/usr/bin/chromium'].find((path) => path !== undefined && existsSync(path))
const TYPES: Readonly<Record<string, string>> = { html: 'text/html', js: 'text/javascript' }

test('the page and the worker of the manual train in a browser and print what stands below them', () => {
  if ('Deno' in globalThis) return skipped('the page of the manual', 'the browser is driven from Node')
  if (chromium === undefined)
    return skipped('the page of the manual', 'there is no chromium (apt-get install chromium, or CHROMIUM=path)')
  return inFolder(async (folder) => {
    const [worker, page] = of('docs/in-the-browser.md')
    const files = [worker, page].map(({ code }) => {
      const [, name] = /^\/\/ (\w+\.ts)\n/.exec(code) ?? []
      // What a bundler does: the worker is a file of its own, whose name it puts in.
      writeFileSync(join(folder, name), code.replace("'./worker.ts'", "'./worker.js'"))
      return join(folder, name)
    })
    const outdir = join(folder, 'site')
    await build({
      entryPoints: files,
      outdir,
      bundle: true,
      splitting: true,
      format: 'esm',
      platform: 'browser',
      external: ['node:*'],
      logLevel: 'error',
    })
    writeFileSync(join(outdir, 'index.html'), '<!doctype html><script type="module" src="page.js"></script>')
    const server = createServer((request, response) => {
      const path = join(outdir, request.url === '/' ? 'index.html' : (request.url as string))
      if (dirname(path) !== outdir || !existsSync(path)) return response.writeHead(404).end()
      response.writeHead(200, { 'Content-Type': TYPES[path.split('.').pop() as string] }).end(readFileSync(path))
    }).listen(0)
    const { chromium: engine } = await import('playwright-core')
    const browser = await engine.launch({ executablePath: chromium, args: ['--no-sandbox', '--disable-gpu'] })
    try {
      const tab = await browser.newPage()
      const lines: string[] = []
      const expected = page.output as string
      const count = expected.trimEnd().split('\n').length
      const said = new Promise<void>((resolve, reject) => {
        tab.on('pageerror', reject)
        tab.on('console', (message) => {
          if (message.type() === 'log' && lines.push(message.text()) === count) resolve()
        })
      })
      await tab.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
      await said
      assert.is(`${lines.join('\n')}\n`, expected)
    } finally {
      await browser.close()
      server.close()
    }
  })
})

test.run()
