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
  /** Largest change between epochs. */
  readonly step: number
  /** Accuracy below the best so far by more than this counts as fallen behind. */
  readonly tolerance: number
}

/**
 * Dynamic mixing (arXiv:1811.02625, section 4): accuracy and verified accuracy conflict late in training, so the balance follows
 * whichever fell behind on a held-out slice. With A, V the last epoch's ACC and VRA and A*, V* the best so far:
 *
 *   A < A* - tolerance:  balance <- balance - step      natural accuracy is being paid
 *   else:                balance <- balance + step      room to ask for more robustness
 *   (but unchanged when V rose by less than nothing and A rose: hysteresis of one epoch)
 *
 * cut to [min, max].
 */
export const adaptive =
  ({ start, min, max, step, tolerance }: Adaptive): Balance =>
  (history) => {
    const last = history[history.length - 1]
    if (last === undefined) return start
    const best = Math.max(...history.map((h) => h.acc))
    const next = last.acc < best - tolerance ? last.balance - step : last.balance + step
    return Math.min(max, Math.max(min, next))
  }
