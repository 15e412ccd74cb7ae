import { generic } from '../bounds/networks.ts'

/** A fully connected network as plain arrays, weights `[out][in]`, a leaky ReLU behind every layer but the last. */
export interface Dense {
  readonly layers: readonly { readonly w: readonly Float32Array[]; readonly b: Float32Array }[]
  readonly leak: number
}

/** A network with generic weights: widths from the inputs to the outputs. */
export const dense = (seed: number, widths: readonly number[], leak = 0): Dense => ({
  leak,
  layers: widths.slice(1).map((n, i) => ({
    w: Array.from({ length: n }, (_, j) =>
      Float32Array.from(generic(widths[i], seed + 31 * i + 7 * j, 2 / Math.sqrt(widths[i]))),
    ),
    b: Float32Array.from(generic(n, seed + 1000 * (i + 1), 0.5)),
  })),
})

/** Its outputs at a point, in doubles. */
export const run = ({ layers, leak }: Dense, x: ArrayLike<number>): Float64Array =>
  layers.reduce(
    (h, { w, b }, i) =>
      Float64Array.from(w, (row, j) => {
        const z = row.reduce((s, a, k) => s + a * h[k], b[j])
        return i === layers.length - 1 || z > 0 ? z : leak * z
      }),
    Float64Array.from(x),
  )

/** A vertex of a part of the box, and the values there. */
interface Vertex {
  readonly x: readonly [number, number]
  readonly h: readonly number[]
}

/** The part of a convex polygon where neuron k of h is at least 0 (sign 1) or at most 0 (sign -1). */
const clip = (polygon: readonly Vertex[], k: number, sign: 1 | -1): readonly Vertex[] =>
  polygon.flatMap((p, i) => {
    const q = polygon[(i + 1) % polygon.length]
    const [a, b] = [sign * p.h[k], sign * q.h[k]]
    const kept = a >= 0 ? [p] : []
    if (a >= 0 === b >= 0) return kept
    const t = a / (a - b)
    const between = (u: readonly number[], v: readonly number[]) => u.map((c, j) => c + t * (v[j] - c))
    return [...kept, { x: between(p.x, q.x) as unknown as [number, number], h: between(p.h, q.h) }]
  })

/**
 * The exact least value (in doubles) over a box of two inputs of max over rows of rows . y - bounds: every activation pattern is
 * a convex polygon on which the network is affine, and a maximum of affine functions is clipped into its pieces.
 */
export const exactMinimum = (
  net: Dense,
  lower: ArrayLike<number>,
  upper: ArrayLike<number>,
  rows: readonly { readonly coefficients: ArrayLike<number>; readonly bound: number }[],
): number => {
  const corners = [
    [lower[0], lower[1]],
    [upper[0], lower[1]],
    [upper[0], upper[1]],
    [lower[0], upper[1]],
  ] as const
  let polygons: readonly (readonly Vertex[])[] = [corners.map((x) => ({ x, h: x }))]
  const affine = (polygon: readonly Vertex[], f: (h: readonly number[]) => readonly number[]) =>
    polygon.map(({ x, h }) => ({ x, h: f(h) }))
  const parts = (k: number) =>
    polygons.flatMap((p) => ([1, -1] as const).map((s) => clip(p, k, s)).filter((q) => q.length > 2))
  net.layers.forEach(({ w, b }, i) => {
    polygons = polygons.map((p) => affine(p, (h) => w.map((row, j) => row.reduce((s, a, k) => s + a * h[k], b[j]))))
    if (i === net.layers.length - 1) return
    w.forEach((_, k) => {
      polygons = parts(k)
    })
    polygons = polygons.map((p) => {
      // On a part each neuron has one sign; rounding at a vertex does not decide it.
      const active = w.map((_, k) => p.reduce((s, v) => s + v.h[k], 0) > 0)
      return affine(p, (h) => h.map((z, k) => (active[k] ? z : net.leak * z)))
    })
  })
  polygons = polygons.map((p) =>
    affine(p, (y) => rows.map(({ coefficients, bound }) => y.reduce((s, v, j) => s + coefficients[j] * v, -bound))),
  )
  // Split where two rows are equal, so that one of them is the largest on each part.
  for (let a = 0; a < rows.length; a++)
    for (let b = 0; b < a; b++) {
      polygons = polygons.map((p) => affine(p, (h) => [...h.slice(0, rows.length), h[a] - h[b]]))
      polygons = parts(rows.length)
    }
  return Math.min(...polygons.flatMap((p) => p.map(({ h }) => Math.max(...h.slice(0, rows.length)))))
}
