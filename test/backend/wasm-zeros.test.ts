import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Backend } from '../../src/compile/backend.ts'
import type { Instruction } from '../../src/compile/instruction.ts'
import { conv, convSizes, matmul } from './instructions.ts'
import { open, planOf, random, runPlan } from './wasm-programs.ts'

/**
 * Kernels leave out what is 0 in all rows or images that they take together. Every result must have the bits of the chain that takes all
 * steps, computed here one rounding after the other, in the order that the kernels document; with zeros that differ from panel to panel and
 * from tile to tile, of both signs, and NaN and infinity on either side.
 */
const f = Math.fround
const backends: Backend[] = []
test.before(async () => {
  for (const threads of [1, 2, 3]) backends.push(await open({ threads }))
})
test.after(() => {
  for (const b of backends) b.dispose()
})

/** Random choices of one seed. */
const dice = (seed: number) => {
  const next = random(seed)
  const int = (from: number, to: number) => from + Math.floor(next() * (to - from + 1))
  const among = <A>(...all: readonly A[]): A => all[int(0, all.length - 1)]
  const zero = () => (next() < 0.5 ? 0 : -0)
  // Some so small that products underflow.
  const value = () => f((next() * 2 - 1) * (next() < 0.05 ? 1e-25 : 1))
  const filled = (n: number) => Float32Array.from({ length: n }, value)
  /** About `count` of the values become NaN or infinite, in some of the cases. */
  const wild = (x: Float32Array, count: number): Float32Array =>
    next() < 0.7 ? x : x.map((v) => (next() < count / x.length ? among(Number.NaN, Infinity, -Infinity) : v))
  return { next, int, among, zero, value, filled, wild }
}

const check = async (
  what: string,
  instruction: Instruction,
  inputs: readonly Float32Array[],
  expected: Float32Array,
): Promise<void> => {
  const plan = planOf(
    [instruction],
    inputs.map((x) => x.length),
    [expected.length],
  )
  for (const b of backends) {
    const [got] = await runPlan(b, plan, inputs)
    const at = got.findIndex((v, i) => !Object.is(v, expected[i]))
    assert.is(at, -1, `${what}, ${b.threads} threads: element ${at} is ${got[at]}, not ${expected[at]}`)
  }
}

test('matmul: what is 0 in a panel of A is left out, and no bit changes', async () => {
  const d = dice(1)
  for (let run = 0; run < 60; run++) {
    const [m, k, n] = [d.int(8, 140), d.among(d.int(1, 60), d.int(250, 530)), d.among(d.int(2, 70), d.int(250, 270))]
    if (m * k * n > 2e6) continue
    const [tA, tB] = [d.int(0, 1), d.int(0, 1)]
    const a = new Float32Array(m * k)
    for (let g = 0; g < m; g += 4) {
      const share = d.among(0, d.next(), 1, 0.1)
      for (let p = 0; p < k; p++) {
        const dead = d.next() < share
        for (let i = g; i < Math.min(m, g + 4); i++)
          a[tA ? p * m + i : i * k + p] = dead ? d.zero() : d.next() < 0.4 ? 0 : d.value()
      }
    }
    const [x, y] = [d.wild(a, 3), d.wild(d.filled(k * n), 2)]
    const out = new Float32Array(m * n)
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++) {
        let sum = 0
        for (let p = 0; p < k; p++) sum = f(sum + f(x[tA ? p * m + i : i * k + p] * y[tB ? j * k + p : p * n + j]))
        out[i * n + j] = sum
      }
    const code = matmul([0, 1, 2], { m, k, n, transA: tA === 1, transB: tB === 1 })
    await check(`${m} x ${k} x ${n}${tA ? ' A^T' : ''}${tB ? ' B^T' : ''}`, code, [x, y], out)
  }
})

/** Columns of the weights in the order in which conv2dInput adds them: those congruent modulo the stride together, descending. */
const columnOrder = (columns: number, stride: number): readonly number[] =>
  Array.from({ length: columns }, (_, q) => q).sort((a, b) => (a % stride) - (b % stride) || b - a)

test('convolutions: what is 0 in a tile or at a position is left out, and no bit changes', async () => {
  const d = dice(2)
  for (let run = 0; run < 150; run++) {
    // Numbers of images that go by tiles, all of them (of one or two left over each goes on its own, in another order).
    const N = d.among(3, 7, 8, 13, 16, 20, 21, 35, 40)
    const [C, H, W, O] = [d.int(3, 13), d.int(1, 11), d.int(1, 11), d.among(d.int(1, 20), d.int(17, 34))]
    const [KH, KW, sy, sx] = [d.int(1, 4), d.among(4, d.int(1, 5)), d.int(1, 3), d.int(1, 3)]
    const [top, left, dy, dx] = [d.int(0, 3), d.int(0, 3), d.int(1, 2), d.int(1, 2)]
    const OH = Math.floor((H + top + d.int(0, 3) - (KH - 1) * dy - 1) / sy) + 1
    const OW = Math.floor((W + left + d.int(0, 3) - (KW - 1) * dx - 1) / sx) + 1
    if (OH < 1 || OW < 1 || N * O * OH * OW * C * KH * KW > 1e6) continue
    const sizes = convSizes([N, C, H, W, O, KH, KW, OH, OW, sy, sx, top, left, dy, dx])
    const [X, Y] = [C * H * W, O * OH * OW]
    const sparse = (cell: number) => {
      let dead: readonly boolean[] = []
      return Float32Array.from({ length: N * cell }, (_, at) => {
        if (at % (8 * cell) === 0) {
          const share = d.among(0, 0.5, 0.9, 1, 0.2)
          dead = Array.from({ length: cell }, () => d.next() < share)
        }
        return dead[at % cell] ? d.zero() : d.next() < 0.3 ? 0 : d.value()
      })
    }
    const x = d.wild(sparse(X), 2)
    // The same with all channels 0 at many positions of an image, which differ from image to image.
    const holes = Array.from({ length: N * H * W }, () => d.next() < 0.6)
    const spotted = x.map((v, at) => (holes[Math.floor(at / X) * H * W + (at % (H * W))] ? d.zero() : v))
    const y = d.wild(sparse(Y), 2)
    const dense = d.wild(d.filled(N * Y), 2)
    const w = d.wild(d.filled(O * C * KH * KW), 1.5)
    const [relu, biased] = [d.int(0, 1), d.int(0, 1)]
    const finish = (sum: number, bias: number) => {
      const v = biased ? f(sum + bias) : sum
      return relu && v <= 0 ? 0 : v
    }
    const iX = (n: number, c: number, i: number, j: number) => ((n * C + c) * H + i) * W + j
    const iY = (n: number, o: number, i: number, j: number) => ((n * O + o) * OH + i) * OW + j
    const iW = (o: number, c: number, p: number, q: number) => ((o * C + c) * KH + p) * KW + q
    const inside = (at: number, extent: number) => at >= 0 && at < extent
    const name = JSON.stringify({ N, C, H, W, O, KH, KW, OH, OW, sy, sx, top, left, dy, dx, relu, biased })

    const forward = new Float32Array(N * Y)
    const bias = d.filled(O)
    for (let n = 0; n < N; n++)
      for (let o = 0; o < O; o++)
        for (let i = 0; i < OH; i++)
          for (let j = 0; j < OW; j++) {
            let sum = 0
            for (let p = 0; p < KH; p++)
              for (let q = 0; q < KW; q++) {
                const [r, s] = [i * sy - top + p * dy, j * sx - left + q * dx]
                if (!inside(r, H) || !inside(s, W)) continue
                for (let c = 0; c < C; c++) sum = f(sum + f(w[iW(o, c, p, q)] * x[iX(n, c, r, s)]))
              }
            forward[iY(n, o, i, j)] = finish(sum, bias[o])
          }
    // Slots: the two operands, the bias, the output.
    const end = { bias: biased ? 2 : undefined, relu: relu === 1 }
    await check(`conv2d ${name}`, conv('conv2d', [0, 1, 3], sizes, end), [x, w, bias], forward)

    const backward = new Float32Array(N * X)
    const shift = d.filled(C)
    for (let n = 0; n < N; n++)
      for (let c = 0; c < C; c++)
        for (let i = 0; i < H; i++)
          for (let j = 0; j < W; j++) {
            let sum = 0
            for (let p = 0; p < KH; p++)
              for (const q of columnOrder(KW, sx)) {
                const [r, s] = [(i + top - p * dy) / sy, (j + left - q * dx) / sx]
                if (!Number.isInteger(r) || !Number.isInteger(s) || !inside(r, OH) || !inside(s, OW)) continue
                for (let o = 0; o < O; o++) sum = f(sum + f(w[iW(o, c, p, q)] * y[iY(n, o, r, s)]))
              }
            backward[iX(n, c, i, j)] = finish(sum, shift[c])
          }
    await check(`conv2dInput ${name}`, conv('conv2dInput', [0, 1, 3], sizes, end), [y, w, shift], backward)

    // At most 16 chunks of images, added in ascending order.
    const chunks = Math.min(16, N)
    const weight = new Float32Array(O * C * KH * KW)
    for (let o = 0; o < O; o++)
      for (let c = 0; c < C; c++)
        for (let p = 0; p < KH; p++)
          for (let q = 0; q < KW; q++) {
            let total = 0
            for (let k = 0; k < chunks; k++) {
              let sum = 0
              for (let n = Math.floor((N * k) / chunks); n < Math.floor((N * (k + 1)) / chunks); n++)
                for (let i = 0; i < OH; i++)
                  for (let j = 0; j < OW; j++) {
                    const [r, s] = [i * sy - top + p * dy, j * sx - left + q * dx]
                    if (inside(r, H) && inside(s, W)) sum = f(sum + f(spotted[iX(n, c, r, s)] * dense[iY(n, o, i, j)]))
                  }
              total = f(total + sum)
            }
            weight[iW(o, c, p, q)] = total
          }
    await check(`conv2dWeight ${name}`, conv('conv2dWeight', [0, 1, 2], sizes), [spotted, dense], weight)
  }
})

test.run()
