/**
 * `mixtrain/data`: data sets, from arrays, files and folders, and what is done with them.
 *
 * @example
 *   import * as data from 'mixtrain/data'
 *   const { train, test } = await data.digits()
 *   const [monitored, others] = data.split(key(1), 500)(train)
 *
 * @module
 */

export { type Augment, compose, crop, flip, varied } from '../data/augment.ts'
export {
  batches,
  type Data,
  type Dataset,
  dataset,
  fingerprintOf,
  hashOf,
  labelsOf,
  pixels,
  select,
  slice,
  split,
  take,
  type Variants,
} from '../data/dataset.ts'
export { digits } from '../data/digits.ts'
export { type FileReader, files } from '../data/files.ts'
export { loadFolder } from '../data/folder.ts'
export type { Images } from '../robust/metric.ts'
export { imagesOf } from '../train/fit.ts'
export { holdOut, taskOf } from '../train/quick.ts'
