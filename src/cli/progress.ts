/** How fast something goes: where it was when it was first seen. */
export interface Pace {
  readonly of: string
  readonly from: number
  readonly since: number
}

/** The pace of `of`, which is `done` now: it begins anew with another thing, and where less is done than before. */
export const paced = (before: Pace | undefined, of: string, done: number, now: number): Pace =>
  before !== undefined && before.of === of && done >= before.from ? before : { of, from: done, since: now }

/** Seconds for people: `8 s`, `3 min`, `1 h 20 min`. */
export const duration = (seconds: number): string => {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 90) return `${whole} s`
  const minutes = Math.round(whole / 60)
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

const rateOf = (perSecond: number): string =>
  perSecond >= 10
    ? `${Math.round(perSecond)}/s`
    : perSecond >= 1
      ? `${perSecond.toFixed(1)}/s`
      : `${duration(1 / perSecond)} each`

export interface Bar {
  readonly label: string
  readonly done: number
  readonly total: number
  /** All of it, if this is a part. */
  readonly whole?: { readonly done: number; readonly total: number } | undefined
  readonly pace: Pace
  readonly now: number
  /** Of the terminal. Default: 80. */
  readonly columns?: number | undefined
}

const WIDEST = 30
/** Below so many milliseconds, or with so few things done, nothing is said about the time that is left. */
const SOON = 1000
const FEW = 2

/** A line that shows how far something is, how fast it goes and how long it takes, as far as there is room for it. */
export const barOf = ({ label, done, total, whole, pace, now, columns = 80 }: Bar): string => {
  const all = whole ?? { done, total }
  const [steps, ms] = [all.done - pace.from, now - pace.since]
  const isKnown = steps >= FEW && ms >= SOON
  const speed = isKnown ? rateOf((1000 * steps) / ms) : ''
  const left = isKnown ? `${duration(((all.total - all.done) * ms) / steps / 1000)} left` : ''
  const room = columns - 1
  const texts = [[`${done}/${total}`, speed, left], [`${done}/${total}`, left], [`${done}/${total}`]].map((parts) =>
    [label, ...parts.filter((part) => part !== '')].join('  '),
  )
  const text = texts.find((t) => t.length + 12 <= room) ?? texts[texts.length - 1]
  const width = Math.min(WIDEST, room - text.length - 2)
  if (width < 8) return text.slice(0, Math.max(0, room))
  const full = Math.round(width * Math.min(1, total === 0 ? 1 : done / total))
  return `${label}  ${'\u2588'.repeat(full)}${'\u2591'.repeat(width - full)}${text.slice(label.length)}`
}
