import type { Mpi, Request } from '../../src/cluster/mpi.ts'

/** What a rank gave to a collective operation: a piece for each rank, and where it wants theirs. */
interface Posted {
  readonly pieces: readonly (Float32Array | Uint8Array)[]
  readonly into: Float32Array | Uint8Array
}

/** The ranks of a job as functions of one process: messages are arrays that change hands. */
export const loopback = (size: number): readonly Mpi[] => {
  const collective: (readonly (Posted | undefined)[])[] = []
  const [pairs, posted] = [new Map<string, number>(), new Map<string, readonly Float32Array[]>()]
  const [mail, waiting] = [new Map<string, number>(), new Map<string, number>()]
  return Array.from({ length: size }, (_, rank) => {
    let calls = 0
    const together = (posted: Posted): Request => {
      const call = calls++
      const before = collective[call] ?? Array.from({ length: size }, () => undefined)
      collective[call] = before.with(rank, posted)
      let done = false
      return () => {
        const all = collective[call]
        if (!done && all.every((p) => p !== undefined)) {
          let at = 0
          for (const { pieces } of all as readonly Posted[]) {
            posted.into.set(pieces[rank], at)
            at += pieces[rank].length
          }
          done = true
        }
        return done
      }
    }
    const alike = <A>(x: A): readonly A[] => Array.from({ length: size }, () => x)
    return {
      rank,
      size,
      exchange: (send, counts, into) => {
        const at = counts.map((_, i) => counts.slice(0, i).reduce((a, b) => a + b, 0))
        return together({ pieces: counts.map((n, i) => send.slice(at[i], at[i] + n)), into })
      },
      gather: (send, into) => together({ pieces: alike(send.slice()), into }),
      gatherBytes: (send, into) => together({ pieces: alike(send.slice()), into }),
      // Both sides of a pair post one after the other.
      swap: ({ own, other }, to) => {
        const way = [rank, to].sort().join('-')
        const mine = pairs.get(`${way} ${rank}`) ?? 0
        pairs.set(`${way} ${rank}`, mine + 1)
        posted.set(
          `${rank}-${to} ${mine}`,
          own.map((x) => x.slice()),
        )
        return () => {
          const theirs = posted.get(`${to}-${rank} ${mine}`)
          theirs?.forEach((x, i) => {
            other[i].set(x)
          })
          return theirs !== undefined
        }
      },
      send: (_, to) => {
        const way = `${rank}-${to}`
        mail.set(way, (mail.get(way) ?? 0) + 1)
        return () => true
      },
      receive: (_, from) => {
        const way = `${from}-${rank}`
        const number = (waiting.get(way) ?? 0) + 1
        waiting.set(way, number)
        return () => (mail.get(way) ?? 0) >= number
      },
      abort: () => undefined,
      finalize: () => undefined,
    }
  })
}
