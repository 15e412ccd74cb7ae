/** What a balance rule may look at: the metrics of the epochs so far. */
export interface EpochMetrics {
  readonly acc: number
  readonly vra: number
  /** The balance that the epoch was trained with. */
  readonly balance: number
}

/** The weight in [0, 1] of the robust term in the next epoch, a pure function of the history. */
export type Balance = (history: readonly EpochMetrics[]) => number

export const fixed =
  (value: number): Balance =>
  () =>
    value

export interface Adaptive {
  /** Balance of the first epoch. */
  readonly start: number
  readonly min: number
  readonly max: number
  /** Change of the balance from one epoch to the next. */
  readonly step: number
  /** A metric has fallen behind when it is below its best so far by more than this: the band in which nothing moves. */
  readonly tolerance: number
}

/**
 * Dynamic mixing (arXiv:1811.02625): accuracy and verified accuracy conflict late in training, so the balance moves towards the loss
 * whose metric fell behind on held-out images. With a = best ACC so far - last ACC and v = best VRA so far - last VRA:
 *
 *   a > tolerance and a >= v:  balance - step      accuracy is being paid
 *   v > tolerance and v > a:   balance + step      robustness is being paid
 *   else:                      unchanged           (hysteresis: noise of evaluation does not move it)
 *
 * cut to [min, max]. A NaN metric moves nothing.
 */
export const adaptive =
  ({ start, min, max, step, tolerance }: Adaptive): Balance =>
  (history) => {
    const last = history[history.length - 1]
    if (last === undefined) return start
    const behind = (metric: (h: EpochMetrics) => number) => Math.max(...history.map(metric)) - metric(last)
    const [a, v] = [behind((h) => h.acc), behind((h) => h.vra)]
    const move = a > tolerance && a >= v ? -step : v > tolerance && v > a ? step : 0
    return Math.min(max, Math.max(min, last.balance + move))
  }
