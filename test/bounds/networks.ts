import { interval } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Apply, Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'

/** Parameters by name, made on first use with generic (never dyadic) values. */
export interface Parameters {
  readonly get: (name: string, shape: S.Shape, scale?: number) => Tensor
  readonly all: () => ReadonlyMap<Tensor, Float64Array>
}

/** n numbers in (-scale, scale) that depend on the seed alone. */
export const generic = (n: number, seed: number, scale = 1): Float64Array => {
  let state = (seed * 2654435761 + 12345) >>> 0
  return Float64Array.from({ length: n }, () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0
    const mixed = Math.imul(state ^ (state >>> 13), 0x297a2d39) >>> 0
    return scale * ((2 * (mixed + 0.37)) / 2 ** 32 - 1)
  })
}

export const parameters = (seed: number): Parameters => {
  const made = new Map<string, Tensor>()
  const data = new Map<Tensor, Float64Array>()
  return {
    get: (name, shape, scale = 1) => {
      const known = made.get(name)
      if (known !== undefined) return known
      const x: Tensor = O.input(name, shape)
      made.set(name, x)
      data.set(x, generic(S.size(shape), seed + made.size * 7919, scale))
      return x
    },
    all: () => data,
  }
}

export const chain =
  (...layers: readonly Apply[]): Apply =>
  (x) =>
    layers.reduce((y, f) => f(y), x)

/** Convolution with a bias per channel. */
export const conv =
  (p: Parameters, name: string, channels: number, size: number, options: O.WindowOptions = {}): Apply =>
  (x) => {
    const from = x.shape[1]
    const w = p.get(`${name}.w`, [channels, from, size, size], 1.5 / Math.sqrt(from * size * size))
    const b = p.get(`${name}.b`, [channels], 0.2)
    return O.add(O.conv2d(x as Operand, w, options), O.reshape(b, [channels, 1, 1])) as typeof x
  }

export const fc =
  (p: Parameters, name: string, out: number): Apply =>
  (x) => {
    const w = p.get(`${name}.w`, [out, x.shape[1]], 1.7 / Math.sqrt(x.shape[1]))
    const b = p.get(`${name}.b`, [out], 0.2)
    return O.add(O.matmul(x as Operand, w, { transB: true }), b) as typeof x
  }

export const flatten: Apply = (x) => O.reshape(x, [x.shape[0], S.size(x.shape.slice(1))])
export const relu: Apply = (x) => O.relu(x)

/** The same function, but rows can no longer be kept as windows behind it: axes are lost and found again. */
export const through: Apply = (x) => O.reshape(flatten(x), x.shape)

/** A box of half-width about epsilon round generic points in the shape given. */
export const boxAround = (shape: S.Shape, epsilon: number, seed: number) => {
  const [l, u] = [O.input('lower', shape), O.input('upper', shape)] as readonly Tensor[]
  const n = S.size(shape)
  const centre = generic(n, seed)
  const radius = generic(n, seed + 1, 0.5).map((r) => epsilon * (1 + r))
  const [lower, upper] = [centre.map((c, i) => c - radius[i]), centre.map((c, i) => c + radius[i])]
  return {
    box: interval(l, u),
    feeds: new Map<Tensor, Float64Array>([
      [l, lower],
      [u, upper],
    ]),
    /** Points of the box, corners among them. */
    points: (count: number): readonly Float64Array[] =>
      Array.from({ length: count }, (_, k) => {
        const t = generic(n, seed + 17 * k + 3).map((v) => (k % 2 === 0 ? Math.sign(v) : v))
        return centre.map((c, i) => Math.min(Math.max(c + t[i] * radius[i], lower[i]), upper[i]))
      }),
  }
}
