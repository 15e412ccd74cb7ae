import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { main, runtime } from './run.ts'

const one = join(dirname(main), 'mixtrain.js')
const said = (program: string, ...args: readonly string[]) => {
  const { status, stdout, stderr } = spawnSync(runtime[0], [...runtime.slice(1), program, ...args], {
    encoding: 'utf8',
  })
  return { status, stdout, stderr }
}

test('the program in one file says what its modules say, loads what is generated, and brings licenses', () => {
  assert.ok(existsSync(join(dirname(main), 'mixtrain.licenses.txt')))
  for (const args of [
    ['help', 'train'],
    ['devices', '--json'],
  ])
    assert.equal(said(one, ...args), said(main, ...args), args.join(' '))
})

test.run()
