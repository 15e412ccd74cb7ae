import { spawnSync } from 'node:child_process'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { commands } from '../../src/cli/commands.ts'
import { barOf, duration, paced } from '../../src/cli/progress.ts'
import { epochLine, table } from '../../src/cli/report.ts'
import { mixtrain, refused } from './run.ts'

test('a bar fits every width and says, where there is room, how fast it goes and how long all of it takes', () => {
  const pace = paced(undefined, '', 10, 1000)
  const bar = (columns: number, now = 11_000) =>
    barOf({ label: 'epoch 2/5 training', done: 20, total: 40, whole: { done: 60, total: 200 }, pace, now, columns })
  // 50 steps in 10 s: 140 are left.
  assert.is(bar(100), `epoch 2/5 training  ${'\u2588'.repeat(15)}${'\u2591'.repeat(15)}  20/40  5.0/s  28 s left`)
  assert.match(bar(60), /^epoch 2\/5 training {2}\u2588+\u2591+ {2}20\/40 {2}.*28 s left$/)
  for (let columns = 1; columns <= 120; columns++)
    assert.ok(bar(columns).length < Math.max(2, columns), String(columns))
  // Nothing is said before there is something to say.
  assert.not.match(bar(100, 1500), /left/)
  assert.is(paced(pace, '', 30, 5000), pace)
  assert.equal(paced(pace, '', 3, 5000), { of: '', from: 3, since: 5000 })
  assert.equal(paced(pace, 'other', 30, 5000), { of: 'other', from: 30, since: 5000 })
})

test('durations are for people', () => {
  assert.equal([0.4, 89, 90, 3600, 5400, 9000].map(duration), [
    '0 s',
    '89 s',
    '2 min',
    '60 min',
    '1 h 30 min',
    '2 h 30 min',
  ])
})

test('the line of an epoch fits a terminal of 80 columns, and keeps what matters', () => {
  const record = {
    ...{ epoch: 9, seconds: 123.4, loss: 2.3, terms: {}, naturalLoss: 2.1, robustLoss: null, balance: 0.5 },
    ...{ epsilon: 0.1, acc: 1, era: 0.5, vra: 0.25 },
  }
  const whole = 'epoch  10/100  loss 2.3000  natural 2.1000  robust -  balance 0.50  epsilon 0.1000  ACC 100.00 %'
  assert.is(epochLine(record, 100), `${whole}  ERA 50.00 %  VRA 25.00 %  123.4 s`)
  assert.is(epochLine(record, 100, 80), 'epoch  10/100  loss 2.3000  ACC 100.00 %  ERA 50.00 %  VRA 25.00 %  123.4 s')
  assert.is(epochLine(record, 100, 20), 'epoch  10/100  ACC 100.00 %  VRA 25.00 %')
})

test('a table is as narrow as its terminal', () => {
  const rows = [['ACC', '97.00 %', 'words '.repeat(30).trim()]]
  for (const columns of [60, 80, 100])
    for (const line of table(rows, [], columns).split('\n')) assert.ok(line.length <= columns, `${columns}: ${line}`)
  assert.ok(table(rows, [], undefined).split('\n')[0].length > 80)
})

test('help COMMAND is COMMAND --help; what is no command is refused', async () => {
  const [help, option, all] = [
    await mixtrain(['help', 'radius']),
    await mixtrain(['radius', '--help']),
    await mixtrain(['help']),
  ]
  assert.is(help.code, 0)
  assert.is(help.out, option.out)
  assert.match(all.out, /mixtrain help COMMAND/)
  await refused(['help', 'radios'], 2, 'no command "radios"; the nearest is radius')
  await refused(['train', 'here'], 2, 'train takes no arguments, but was given "here" besides')
  const misplaced = await mixtrain(['--json'])
  assert.is(misplaced.code, 2)
  assert.match(misplaced.err, /--json is an option of commands: mixtrain COMMAND --json/)
})

test('completion: every command and option in every shell, and a script that bash takes', async () => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { code, out, err } = await mixtrain(['completion', shell])
    assert.is(code, 0, err)
    for (const { command } of commands) assert.ok(out.includes(command.name), `${shell}: ${command.name}`)
    assert.ok(out.includes('batch-size') && out.includes('config'))
  }
  await refused(['completion', 'sh'], 2, 'no shell "sh"')
  const { out } = await mixtrain(['completion', 'bash'])
  const ask = `COMP_WORDS=(mixtrain radius --mo); COMP_CWORD=2; _mixtrain; echo "\${COMPREPLY[@]}"`
  const { status, stdout, stderr } = spawnSync('bash', ['-c', `${out}\n${ask}`], { encoding: 'utf8' })
  assert.is(status, 0, stderr)
  assert.is(stdout.trim(), '--most')
})

test.run()
