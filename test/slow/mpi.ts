import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { type Ended, main, runtime, start } from '../cli/run.ts'

const why = (): string | undefined => {
  if (spawnSync('mpirun', ['--version']).status !== 0) return 'Open MPI (mpirun) is not installed'
  try {
    createRequire(import.meta.url).resolve('koffi')
    return undefined
  } catch {
    return 'the package koffi is not installed'
  }
}
/** Why training over ranks cannot be tried here; undefined where it can. */
export const missing: string | undefined = why()

export const MPI: readonly string[] = [
  '--allow-run-as-root',
  '--oversubscribe',
  '--mca',
  'btl',
  'self,vader,tcp',
  '--mca',
  'btl_vader_single_copy_mechanism',
  'none',
]
/** The command of training over n ranks. */
export const ranks = (n: number, args: readonly string[], ...env: readonly string[]): readonly string[] => [
  ...['mpirun', ...MPI, ...env.flatMap((e) => ['-x', e]), '-n', String(n), ...runtime, main, ...args],
]
/** A command that has to succeed. */
export const ended = async (argv: readonly string[]): Promise<Ended> => {
  const e = await start(argv).ended
  assert.is(e.code, 0, `${argv.join(' ')}\n${e.err}`)
  return e
}
/** SHA-256 of the model in a run's folder. */
export const hashOf = (folder: string): string =>
  createHash('sha256')
    .update(readFileSync(join(folder, 'model.safetensors')))
    .digest('hex')

const BASE = ['--limit', '82,8', '--batch-size', '24', '--seed', '3', '--device', 'wasm']
/** Training of three steps an epoch. */
export const train = (folder: string, threads: number, ...more: readonly string[]): readonly string[] => [
  ...['train', ...BASE, '--threads', String(threads), '--output', folder, ...more],
]

/** The process that has a rank of a job that `mpirun` started as process `pid`; undefined before it is there. */
export const processOf = (pid: number, rank: number): number | undefined =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter(Boolean)
    .map(Number)
    .find((child) => {
      try {
        return readFileSync(`/proc/${child}/environ`, 'utf8').split('\0').includes(`OMPI_COMM_WORLD_RANK=${rank}`)
      } catch {
        return false
      }
    })
