import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { allocator } from '../../src/backend/wasm/memory.ts'
import { type Pacing, steady } from '../../src/backend/wasm/pace.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { openRegion, withRegion } from '../../src/compile/region.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { Combine, LoopMode, Micro } from '../../src/core/lowering.ts'
import { between, fill } from './instructions.ts'
import { type LoopSpec, loopOf, open, planOf, random, randomArray, right, runPlan, sameBits } from './wasm-programs.ts'

const kindOf = (f: () => unknown): string => {
  try {
    f()
    return 'none'
  } catch (e) {
    return e instanceof MixtrainException ? e.error.kind : String(e)
  }
}

const binary = (n: number, m: Micro): LoopSpec => ({
  dims: [n],
  mode: LoopMode.map,
  combine: Combine.sum,
  kept: 1,
  out: { offset: 0, strides: [1] },
  inputs: [
    { offset: 0, strides: [1] },
    { offset: 0, strides: [1] },
  ],
  temporaries: 1,
  ops: [[m, 2, 0, 1, 0]],
})

// ------------------------------------------------------------------------------------------------------------ allocator

test('the allocator hands out disjoint aligned blocks, joins what is freed and grows', () => {
  let end = 1 << 16
  const a = allocator(4096, end, (wanted) => {
    if (wanted > 1 << 22) return undefined
    end = Math.max(end, Math.ceil(wanted / 65536) * 65536)
    return end
  })
  const next = random(3)
  const held: { start: number; bytes: number }[] = []
  for (let i = 0; i < 4000; i++) {
    if (held.length > 0 && next() < 0.48) {
      const [block] = held.splice(Math.floor(next() * held.length), 1)
      a.give(block.start)
      assert.throws(() => a.give(block.start))
      continue
    }
    const bytes = Math.floor(next() * 5000)
    const align = next() < 0.5 ? 64 : 256
    const start = a.take(bytes, align)
    if (start === undefined) continue
    assert.is(start % align, 0)
    assert.ok(start >= 4096 && start + bytes + 28 <= end)
    for (const h of held) assert.ok(start + bytes <= h.start || h.start + h.bytes <= start)
    held.push({ start, bytes })
  }
  for (const h of held) a.give(h.start)
  assert.ok(a.take((1 << 22) - 8192) !== undefined, 'everything is one range again')
  assert.is(a.take(1 << 22), undefined)
})

// -------------------------------------------------------------------------------------------------------------- buffers

test('buffers: content, ranges, a second free, another backend', async () => {
  const b = await open({ threads: 1 })
  const other = await open({ threads: 1 })
  const x = b.alloc(5)
  b.write(x, Float64Array.of(1, 2, 3, 4, 0.1))
  b.write(x, Float32Array.of(9), 1)
  assert.equal([...(await b.read(x))], [1, 9, 3, 4, Math.fround(0.1)])
  assert.equal([...(await b.read(x, 1, 2))], [9, 3])
  assert.is(
    kindOf(() => b.write(x, new Float32Array(6))),
    'device',
  )
  assert.is(
    kindOf(() => b.write(x, new Float32Array(1), 5)),
    'device',
  )
  assert.is(
    kindOf(() => other.free(x)),
    'device',
  )
  assert.equal(b.stats(), { live: 1, bytes: 20, peak: b.stats().peak })
  b.free(x)
  assert.is(
    kindOf(() => b.free(x)),
    'device',
  )
  assert.is(
    kindOf(() => b.write(x, new Float32Array(1))),
    'device',
  )
  assert.is(b.stats().live, 0)
  b.dispose()
  b.dispose()
  other.dispose()
  assert.is(
    kindOf(() => b.alloc(1)),
    'device',
  )
})

for (const threads of [1, 2])
  test(`memory grows under live buffers, ${threads} threads`, async () => {
    const b = await open({ threads })
    const x = b.alloc(100)
    b.write(x, randomArray(100, 1))
    const n = 4 << 20
    const y = b.alloc(n)
    b.write(y, Float32Array.of(42), n - 1)
    assert.ok(sameBits(await b.read(x), randomArray(100, 1)))
    assert.equal([...(await b.read(y, n - 1))], [42])
    const a = randomArray(3000, 5)
    const [sum] = await runPlan(b, planOf([loopOf(binary(3000, Micro.add))], [3000, 3000], [3000]), [a, a])
    assert.ok(
      sameBits(
        sum,
        a.map((v) => v + v),
      ),
    )
    b.dispose()
  })

test('too much memory is an error value or an exception of kind memory, and everything goes on', async () => {
  const b = await open({ threads: 1, maxBytes: 8 << 20 })
  assert.is(
    kindOf(() => b.alloc(1 << 22)),
    'memory',
  )
  const big = planOf([], [1], [1], [{ at: 'arena', offset: 0, length: 1 << 22 }])
  const e = await b.compile(big)()
  assert.ok(E.isLeft(e) && e.left.kind === 'memory')
  const x = randomArray(50, 1)
  const [sum] = await runPlan(b, planOf([loopOf(binary(50, Micro.sub))], [50, 50], [50]), [x, x])
  assert.ok(sameBits(sum, new Float32Array(50)))
  assert.is(b.stats().live, 0)
  b.dispose()
})

test('options are checked', async () => {
  for (const threads of [0, -1, 1.5, Number.NaN]) {
    const e = await wasm({ threads })()
    assert.ok(E.isLeft(e) && e.left.kind === 'usage')
  }
})

// ------------------------------------------------------------------------------------------------------------- programs

test('constants, the arena and several instructions; a later program may enlarge the arena', async () => {
  const n = 70_000
  // t (arena) = x * c (constant scalar); out = t + x
  const program = (length: number) => {
    const first = loopOf({
      ...binary(length, Micro.mul),
      inputs: [
        { offset: 0, strides: [1] },
        { offset: 0, strides: [0] },
      ],
    })
    const second = loopOf(binary(length, Micro.add))
    return planOf(
      [between(first, 3, 0, 2), between(second, 1, 3, 0)],
      [length],
      [length],
      [
        { at: 'constant', offset: 1, length: 1 },
        { at: 'arena', offset: 64, length },
      ],
      [7, 0.1],
    )
  }
  for (const threads of [1, 2]) {
    const b = await open({ threads })
    const small = right(await b.compile(program(10))())
    const large = right(await b.compile(program(n))())
    for (const [e, length] of [
      [small, 10],
      [large, n],
      [small, 10],
    ] as const) {
      const x = randomArray(length, 3)
      const [i, o] = [b.alloc(length), b.alloc(length)]
      b.write(i, x)
      b.run(e, [i, o])
      assert.ok(
        sameBits(
          await b.read(o),
          x.map((v) => Math.fround(Math.fround(v * Math.fround(0.1)) + v)),
        ),
      )
      b.free(i)
      b.free(o)
    }
    b.release(small)
    assert.is(
      kindOf(() => b.release(small)),
      'device',
    )
    assert.is(
      kindOf(() => b.run(small, [])),
      'device',
    )
    b.dispose()
  }
})

test('malformed programs are refused', async () => {
  const b = await open({ threads: 1 })
  const refused = async (plan: ReturnType<typeof planOf>) => {
    const e = await b.compile(plan)()
    assert.ok(E.isLeft(e) && e.left.kind === 'device', JSON.stringify(e))
  }
  await refused(planOf([fill(4, 0, 1, 0)], [1], []))
  await refused(planOf([fill(0, 1, 1, 0)], [1], []))
  await refused(planOf([fill(0, Number.NaN, 1, 0)], [1], []))
  await refused(planOf([loopOf(binary(5, Micro.add))], [5, 4], [5]))
  await refused(planOf([loopOf({ ...binary(5, Micro.add), ops: [[Micro.add, 9, 0, 0, 0]] })], [5, 5], [5]))
  /** Three rounds in which slot 2, of 4 elements, moves through slot 3, of 12. */
  const moving = (slot: number, store: number, at: number, stride: number) =>
    planOf(
      [
        {
          kind: 'repeat',
          work: 0,
          count: 0,
          per: 1,
          most: 3,
          round: 1,
          moving: [{ slot, store, at, stride }],
          body: [],
        },
      ],
      [1],
      [],
      [1, 4, 12].map((length) => ({ at: 'arena', offset: 0, length })),
    )
  assert.ok(E.isRight(await b.compile(moving(2, 3, 0, 4))()))
  for (const [slot, store, at, stride] of [
    [2, 3, 1, 4],
    [2, 3, 0, 5],
    [2, 3, 0, 3],
    [2, 9, 0, 4],
    [9, 3, 0, 4],
  ])
    await refused(moving(slot, store, at, stride))
  b.dispose()
})

test('arguments are checked', async () => {
  const b = await open({ threads: 1 })
  const e = right(await b.compile(planOf([loopOf(binary(5, Micro.add))], [5, 5], [5]))())
  const [x, y, short] = [b.alloc(5), b.alloc(5), b.alloc(4)]
  assert.is(
    kindOf(() => b.run(e, [x, x])),
    'device',
  )
  assert.is(
    kindOf(() => b.run(e, [x, y, x])),
    'device',
  )
  assert.is(
    kindOf(() => b.run(e, [x, short, y])),
    'device',
  )
  assert.is(
    kindOf(() => b.run(e, [x, x, y])),
    'none',
  )
  b.dispose()
})

for (const threads of [1, 2])
  test(`a thousand runs leave the statistics flat, ${threads} threads`, async () => {
    const b = await open({ threads })
    const n = 20_000
    const e = right(await b.compile(planOf([loopOf(binary(n, Micro.add))], [n, n], [n]))())
    const args = [b.alloc(n), b.alloc(n), b.alloc(n)]
    b.write(args[0], randomArray(n, 1))
    b.write(args[1], randomArray(n, 2))
    b.run(e, args)
    const before = b.stats()
    const want = await b.read(args[2])
    for (let i = 0; i < 1000; i++) b.run(e, args)
    assert.equal(b.stats(), before)
    assert.ok(sameBits(await b.read(args[2]), want))
    b.dispose()
  })

test('small and shared instructions alternate without a race, on more threads than cores', async () => {
  const n = 5000
  const next = random(8)
  // a, b in the arena: a = x + x, then in turns b = a * a, a = b - x, each alone or shared.
  const instruction = (m: Micro, out: number, a: number, b: number) =>
    between(loopOf(binary(n, m), next() < 0.5 ? 100 : 1 << 20), out, a, b)
  const turns = Array.from({ length: 40 }, () => [
    instruction(Micro.mul, 3, 2, 2),
    instruction(Micro.sub, 2, 3, 0),
  ]).flat()
  const plan = planOf(
    [instruction(Micro.add, 2, 0, 0), ...turns, instruction(Micro.add, 1, 2, 3)],
    [n],
    [n],
    [
      { at: 'arena', offset: 0, length: n },
      { at: 'arena', offset: 5056, length: n },
    ],
  )
  const x = randomArray(n, 2).map((v) => v * 0.4)
  const one = await open({ threads: 1 })
  const [want] = await runPlan(one, plan, [x])
  one.dispose()
  // Threads stay away from some runs and take part in the next, in any order.
  const draw = random(9)
  const changing: Pacing = (most) => ({ threadsFor: () => 1 + Math.floor(draw() * most), ran: () => undefined })
  for (const [threads, pace] of [
    [2, steady],
    [5, steady],
    [5, changing],
  ] as const) {
    const b = await open({ threads, pace })
    for (let i = 0; i < (pace === changing ? 60 : 20); i++) assert.ok(sameBits((await runPlan(b, plan, [x]))[0], want))
    b.dispose()
  }
})

test('a pace is told of the waits at barriers, and of shared programs only', async () => {
  const n = 5000
  const told: number[] = []
  const watching: Pacing = (most) => ({
    threadsFor: () => most,
    ran: (_, milliseconds, waits) => {
      assert.ok(milliseconds >= 0 && Number.isInteger(waits) && waits >= 0)
      told.push(waits)
    },
  })
  const b = await open({ threads: 9, pace: watching })
  const alone = planOf([loopOf(binary(n, Micro.add), 100)], [n, n], [n])
  await runPlan(b, alone, [randomArray(n, 1), randomArray(n, 2)])
  assert.is(told.length, 0)
  const shared = planOf([loopOf(binary(n, Micro.add), 1 << 20)], [n, n], [n])
  for (let i = 0; i < 20; i++) await runPlan(b, shared, [randomArray(n, 1), randomArray(n, 2)])
  assert.is(told.length, 20)
  b.dispose()
})

test('fast math is close', async () => {
  const b = await open({ threads: 1, fastMath: true })
  const x = randomArray(1000, 1)
  const y = randomArray(1000, 2)
  const spec: LoopSpec = { ...binary(1000, Micro.mulAdd), ops: [[Micro.mulAdd, 2, 0, 1, 1]] }
  const [got] = await runPlan(b, planOf([loopOf(spec)], [1000, 1000], [1000]), [x, y])
  got.forEach((v, i) => assert.ok(Math.abs(v - (x[i] * y[i] + y[i])) < 1e-6))
  b.dispose()
})

test('a process with parked workers ends by itself', () => {
  // Beside this file, where the runtimes find the packages.
  const folder = mkdtempSync(fileURLToPath(new URL('park-', import.meta.url)))
  const file = join(folder, 'park.mjs')
  const source = new URL('../../src/backend/wasm/wasm.js', import.meta.url).href
  writeFileSync(
    file,
    `import { wasm } from '${source}'\nconst e = await wasm({ threads: 3 })()\nconsole.log(String(e.right.threads))\n`,
  )
  try {
    const printed = execFileSync(process.execPath, [file], { timeout: 20_000, encoding: 'utf8' })
    assert.is(printed.trim(), '3')
  } finally {
    rmSync(folder, { recursive: true })
  }
})

// --------------------------------------------------------------------------------------------------------------- region

test('a region frees exactly once on Right, Left, throw and rejection', async () => {
  const b = await open({ threads: 1 })
  const outcomes: readonly (() => TE.TaskEither<string, number>)[] = [
    () => TE.right(1),
    () => TE.left('no'),
    () => {
      throw new Error('thrown')
    },
    () => () => Promise.reject(new Error('rejected')),
  ]
  const seen: string[] = []
  for (const outcome of outcomes) {
    await withRegion(b)((region) => {
      region.alloc(10)
      region.free(region.from(Float32Array.of(1)))
      assert.is(b.stats().live, 1)
      return outcome()
    })().then(
      (e) => seen.push(e._tag),
      (e: Error) => seen.push(e.message),
    )
    assert.is(b.stats().live, 0)
  }
  assert.equal(seen, ['Right', 'Left', 'thrown', 'rejected'])
  const kept = right(await withRegion(b)((region) => TE.right(region.detach(region.from(Float32Array.of(5)))))())
  assert.equal([...(await b.read(kept))], [5])
  b.free(kept)
  b.dispose()
})

test('a region releases what was deferred, last first, when it is closed', async () => {
  const b = await open({ threads: 1 })
  const { region, close } = openRegion(b)
  const order: number[] = []
  region.alloc(3)
  region.defer(() => order.push(1))
  region.defer(() => order.push(2))
  close()
  close()
  assert.equal(order, [2, 1])
  assert.is(b.stats().live, 0)
  b.dispose()
})

test.run()
