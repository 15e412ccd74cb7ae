import type { TopLevelSpec } from 'vega-lite'
import { frame } from './race-plot.ts'
import { front, type Trial } from './tune-front.ts'

/** ACC against VRA of test images: all trials of the last rung as points, those that no other of their loss dominates (on held-out images) joined by a line. */
export const fronts = (trials: readonly Trial[], subtitle: string): TopLevelSpec => {
  const losses = [...new Set(trials.map((t) => t.loss))]
  const rows = losses.flatMap((loss) => {
    const own = trials.filter((t) => t.loss === loss)
    const best = front(own)
    return own.map((t) => ({ loss, acc: t.test.acc, vra: t.test.vra, best: best.includes(t) }))
  })
  const scale = { zero: false, nice: true }
  const encoding = {
    x: { field: 'vra', type: 'quantitative' as const, title: 'VRA of test images', scale, axis: { format: '.0%' } },
    y: { field: 'acc', type: 'quantitative' as const, title: 'ACC of test images', scale, axis: { format: '.1%' } },
    color: { field: 'loss', type: 'nominal' as const, title: null, scale: { scheme: 'tableau10' as const } },
  }
  return {
    ...frame('Fronts of ACC against VRA', subtitle),
    width: 480,
    height: 340,
    layer: [
      { data: { values: rows }, mark: { type: 'point', size: 40, opacity: 0.6 }, encoding },
      {
        data: { values: rows.filter((r) => r.best) },
        mark: { type: 'line', point: { size: 70, filled: true } },
        encoding: { ...encoding, order: { field: 'vra', type: 'quantitative' } },
      },
    ],
  }
}
