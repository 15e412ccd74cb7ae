import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { adaptive, type Pace, steady } from '../../src/backend/wasm/pace.ts'

/** Milliseconds of a run, and how often its threads waited, by the number of threads. */
type Machine = (threads: number) => { readonly ms: number; readonly waits: number }

const quiet: Machine = (threads) => ({ ms: 10 / threads, waits: 0 })
/** Two cores: shares that differ make threads wait, and more threads than cores are slow. */
const uneven: Machine = (threads) => ({ ms: threads > 2 ? 12 : 10 / threads, waits: threads - 1 })
const crowded: Machine = (threads) => ({ ms: 10 * (threads === 1 ? 1 : 1 + threads), waits: 3 * (threads - 1) })

/** Runs one program on a machine so many times; the total time. */
const spend = (pace: Pace, machine: Machine, runs: number, program = 1): number => {
  let time = 0
  for (let i = 0; i < runs; i++) {
    const { ms, waits } = machine(pace.threadsFor(program))
    pace.ran(program, ms, waits)
    time += ms
  }
  return time
}

const watched = (most: number) => {
  const changes: string[] = []
  return { changes, pace: adaptive(most, (now, before) => changes.push(`${before} to ${now}`)) }
}

test('on a quiet machine no other number of threads is tried', () => {
  const { changes, pace } = watched(4)
  for (let i = 0; i < 10_000; i++) {
    assert.is(pace.threadsFor(1), 4)
    pace.ran(1, 2.5, 0)
  }
  assert.equal(changes, [])
})

test('threads that wait although they are faster stay, and trials cost little', () => {
  const { changes, pace } = watched(2)
  const took = spend(pace, uneven, 10_000)
  assert.equal(changes, [])
  assert.ok(took < 1.01 * 5 * 10_000, `${took}`)
  // Also of a short run.
  assert.ok(spend(watched(2).pace, uneven, 100) < 1.1 * 5 * 100)
})

test('waiting threads are lowered to what is fastest, and come back when the machine is quiet', () => {
  const { changes, pace } = watched(8)
  const took = spend(pace, crowded, 2000)
  assert.equal(changes, ['8 to 4', '4 to 2', '2 to 1'])
  assert.is(pace.threadsFor(2), 1)
  assert.ok(took < 1.3 * 10 * 2000, `${took}`)
  assert.ok(spend(pace, crowded, 20_000) < 1.02 * 10 * 20_000)
  spend(pace, quiet, 100_000)
  assert.equal(changes.slice(3), ['1 to 2', '2 to 4', '4 to 8'])
  assert.is(pace.threadsFor(2), 8)
})

test('more threads than cores come down to the cores', () => {
  const { changes, pace } = watched(4)
  spend(pace, uneven, 1000)
  assert.equal(changes, ['4 to 2'])
})

test('one slow run, a process that was stopped, changes nothing', () => {
  const { changes, pace } = watched(2)
  for (let i = 0; i < 5000; i++) {
    const threads = pace.threadsFor(1)
    pace.ran(1, i % 500 === 250 ? 60_000 : 10 / threads, 1)
  }
  assert.equal(changes, [])
})

test('a trial belongs to one program and is given up when that does not run again', () => {
  const { changes, pace } = watched(2)
  // Each program runs once: none can be compared with itself.
  for (let i = 0; i < 5000; i++) {
    assert.is(pace.threadsFor(i), 2)
    pace.ran(i, 30, 2)
  }
  assert.equal(changes, [])
  spend(pace, crowded, 2000, -1)
  assert.equal(changes, ['2 to 1'])
})

test('one thread and steady threads are never changed', () => {
  assert.is(spend(watched(1).pace, crowded, 100), 1000)
  const pace = steady(4)
  spend(pace, crowded, 1000)
  assert.is(pace.threadsFor(1), 4)
})

test.run()
