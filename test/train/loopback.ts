import type { Mpi, Request } from '../../src/cluster/mpi.ts'

/** What a rank gave to a collective operation: a piece for each rank, and where it wants theirs. */
interface Posted {
  readonly pieces: readonly (Float32Array | Uint8Array)[]
  readonly into: Float32Array | Uint8Array
}

/** The ranks of a job as functions of one process: messages are arrays that change hands. */
export const loopback = (size: number): readonly Mpi[] => {
  const collective: (readonly (Posted | undefined)[])[] = []
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
