import type { Backend } from '../compile/backend.ts'
import { type ImageVerdict, type VerifyOptions, verifyEach } from '../train/verify.ts'
import { type Summary, summaryOf } from './merge.ts'
import type { Team } from './team.ts'

/** The images of a rank: every `size`-th of them. All ranks have equally many, some of the last ones twice, so that they compute the same number of chunks. */
export const imagesOfRank = (count: number, { rank, size }: Pick<Team, 'rank' | 'size'>): readonly number[] =>
  Array.from({ length: Math.ceil(count / size) }, (_, i) => Math.min(count - 1, i * size + rank))

/** `verify` by all ranks of a job: each judges its images, and everyone hears of all of them after each chunk. Says what one process says. */
export const verifyOver =
  (team: Pick<Team, 'rank' | 'size' | 'collect'>, options: Omit<VerifyOptions, 'complete' | 'trace'>) =>
  async (backend: Backend): Promise<Summary> => {
    const images = imagesOfRank(options.data.count, team)
    const found = new Map<number, ImageVerdict>()
    for await (const own of verifyEach({ ...options, images })(backend))
      for (const text of await team.collect(JSON.stringify(own)))
        for (const verdict of JSON.parse(text) as readonly ImageVerdict[]) found.set(verdict.image, verdict)
    return summaryOf([...found.values()].sort((a, b) => a.image - b.image))
  }
