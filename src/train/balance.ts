/** What a balance rule may look at: the metrics of the epochs so far. */
export interface EpochMetrics {
  readonly acc: number
  readonly vra: number
  /** VRA by interval bounds alone, and the share of tight bounds that the epoch was trained with, where a run balances these too. */
  readonly cheapVra?: number | undefined
  readonly share?: number | undefined
  /** The balance that the epoch was trained with. */
  readonly balance: number
}

/** The weight in [0, 1] of the robust term in the next epoch, a pure function of the history. */
export type Balance = (history: readonly EpochMetrics[]) => number

/**
 * The balance that is the same in every epoch.
 *
 * @example
 *   fixedBalance(0.5)([]) // 0.5
 */
export const fixed =
  (value: number): Balance =>
  () =>
    value

/** How an adaptive balance moves: where it begins, between which limits, by how much in an epoch, and what counts as near the best. */
export interface Adaptive {
  /** Balance of the first epoch: low, as a network that classifies nothing has nothing to defend. */
  readonly start: number
  readonly min: number
  readonly max: number
  /** Change of the balance from one epoch to the next. */
  readonly step: number
  /** A metric has fallen behind when it is below its best so far by more than this: twice the width of the band in which nothing moves. */
  readonly tolerance: number
}

/**
 * Dynamic mixing (arXiv:1811.02625): accuracy and verified accuracy conflict late in training, so the balance climbs as long as accuracy does not pay, and
 * moves towards the loss whose metric fell behind. ACC and VRA on held-out images are smoothed over two epochs; a and v are how far each is below its
 * best so far:
 *
 *   a > tolerance and a >= v:  balance - step      accuracy is being paid
 *   v > tolerance and v > a:   balance + step      robustness is being paid
 *   a <= tolerance / 2:        balance + step      nothing is being paid: more robustness
 *   else:                      unchanged           (hysteresis: noise of evaluation does not move it)
 *
 * cut to [min, max]. A NaN metric moves nothing.
 *
 * @example
 *   const rule = adaptiveBalance({ start: 0.2, min: 0.2, max: 0.8, step: 0.1, tolerance: 0.01 })
 */
export const adaptive =
  ({ start, min, max, step, tolerance }: Adaptive): Balance =>
  (history) => {
    const last = history[history.length - 1]
    if (last === undefined) return start
    const behind = (metric: (h: EpochMetrics) => number) => {
      const smooth = history.map((h, i) => (metric(h) + metric(history[i - 1] ?? h)) / 2)
      return Math.max(...smooth) - smooth[smooth.length - 1]
    }
    const [a, v] = [behind((h) => h.acc), behind((h) => h.vra)]
    const move =
      a > tolerance && a >= v ? -step : v > tolerance && v > a ? step : a <= tolerance / 2 && v <= tolerance ? step : 0
    return Math.min(max, Math.max(min, last.balance + move))
  }

/**
 * The share of tight bounds among robust terms (`twofold`), by the rule of `adaptive` for the second conflict: VRA by intervals in the place of ACC, for training tight bounds alone costs it,
 * and VRA by the tight method, which training intervals alone costs. It climbs as long as the network keeps what intervals can prove.
 *
 * @example
 *   const rule = tightShare({ start: 0.5, min: 0.1, max: 0.9, step: 0.1, tolerance: 0.01 })
 */
export const tightShare =
  (rule: Adaptive): Balance =>
  (history) =>
    adaptive(rule)(
      history.map(({ vra, cheapVra = vra, share = rule.start }) => ({ acc: cheapVra, vra, balance: share })),
    )
