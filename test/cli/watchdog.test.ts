import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { guarded } from '../../src/cluster/watchdog.ts'
import { inFolder, runtime, start } from './run.ts'

test('a call that returns in time gives what it returns, or throws', async () => {
  assert.is(await guarded(60, 'late', () => 7), 7)
  const thrown = await guarded(60, 'late', () => {
    throw new RangeError('its own')
  }).catch((e: unknown) => e)
  assert.instance(thrown, RangeError)
})

test(
  'a call that blocks its thread ends the process, with the message',
  inFolder(async (folder) => {
    const script = join(folder, 'blocks.mjs')
    const watchdog = new URL('../../src/cluster/watchdog.js', import.meta.url)
    writeFileSync(
      script,
      `import { guarded } from ${JSON.stringify(watchdog.href)}
await guarded(0.2, 'rank 3 on here: it hangs', () => { for (;;) ; })`,
    )
    const { code, err } = await start([...runtime, script]).ended
    assert.is.not(code, 0)
    assert.match(err, /rank 3 on here: it hangs/)
  }),
)

test.run()
