import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

export const METHODS = ['natural', 'pgd', 'ibp', 'crown-ibp', 'symbolic', 'sabr', 'mtl-ibp', 'mixtrain'] as const
export type Method = (typeof METHODS)[number]

/** One epoch of one run. */
export interface RaceRecord {
  readonly run: string
  /** `pgd` is PGD-40, `symbolic` bounds the whole batch. */
  readonly method: Method
  /** Images of a batch that MixTrain bounds; null for the others. */
  readonly k: number | null
  readonly network: string
  readonly data: string
  readonly epsilon: number
  readonly seed: number
  /** From 0. */
  readonly epoch: number
  /** Training time so far, without evaluation. */
  readonly seconds: number
  /** Fractions of the fixed slice of test images. */
  readonly acc: number
  readonly era: number
  readonly vra: number
  /** Peak of the backend in a training step. */
  readonly memoryMB: number
}

/** A finished run on the whole test set. */
export interface FinalRecord {
  readonly run: string
  readonly method: Method
  readonly k: number | null
  readonly network: string
  readonly data: string
  readonly epsilon: number
  readonly seed: number
  readonly epochs: number
  /** Why training ended: all its epochs, or the time budget. */
  readonly ended: 'epochs' | 'budget'
  readonly seconds: number
  readonly images: number
  readonly acc: number
  readonly era: number
  readonly vra: number
}

/** What all methods have in common, and how they are measured: a race goes on only under what it began with. */
export interface Settings {
  readonly network: string
  readonly data: string
  readonly epsilon: number
  readonly epochs: number
  readonly batchSize: number
  readonly lr: number
  readonly balance: number
  readonly trainImages: number
  readonly testImages: number
  /** The first so many test images measure each epoch. */
  readonly slice: number
  readonly verifier: string
  readonly attack: string
  readonly threads: number
  /** Runs at the same time, each with `threads` threads. */
  readonly jobs: number
}

export interface Environment extends Settings {
  readonly date: string
  readonly machine: string
  readonly cores: number
  readonly memoryGB: number
  readonly node: string
  readonly platform: string
  readonly mixtrain: string
  /** Training seconds after which a run ends with the epoch that it is in. */
  readonly budgetSeconds: number
  readonly command: string
}

/** JSON lines; a file that is absent is empty. */
export const readLines = <A>(path: string): readonly A[] =>
  existsSync(path)
    ? readFileSync(path, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as A)
    : []

/** Writes a file as a whole: one that is killed meanwhile leaves the old one. */
export const replace = (path: string, content: string | Uint8Array): void => {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(`${path}.tmp`, content)
  renameSync(`${path}.tmp`, path)
}

export const writeLines = <A>(path: string, rows: readonly A[]): void =>
  replace(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))

/** The rows with those of one run exchanged: they stand where the run stood, or at the end. */
export const withRun = <A extends { readonly run: string }>(
  rows: readonly A[],
  run: string,
  own: readonly A[],
): readonly A[] => {
  const at = rows.findIndex((row) => row.run === run)
  const others = rows.filter((row) => row.run !== run)
  return at < 0 ? [...others, ...own] : [...others.slice(0, at), ...own, ...others.slice(at)]
}
