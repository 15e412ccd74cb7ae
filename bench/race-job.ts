import { parentPort, workerData } from 'node:worker_threads'
import { MixtrainException } from '../src/core/error.ts'
import { dataOf, type Job, type Report, runEntry } from './race-run.ts'

/** The thread of one run of the race. */
const { entry, source, ...job } = workerData as Job
const say = (report: Report): void => parentPort?.postMessage(report)

try {
  const final = await runEntry(entry, {
    ...job,
    data: await dataOf(source),
    epoch: (rows) => say({ kind: 'epoch', rows }),
    note: (text) => say({ kind: 'note', text }),
  })
  say({ kind: 'final', final })
} catch (cause) {
  if (!(cause instanceof MixtrainException)) throw cause
  say({ kind: 'refused', message: cause.message })
}
