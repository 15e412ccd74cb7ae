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

export { type Arrays, type FeatureRange, fromArrays, type Scaled } from '../data/arrays.ts'
export { type Augment, compose, crop, flip, varied } from '../data/augment.ts'
export { type CsvOptions, decodeCsv, type Table } from '../data/csv.ts'
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
  sharedImages,
  slice,
  split,
  take,
  type Variants,
} from '../data/dataset.ts'
export { digits } from '../data/digits.ts'
export { type FileReader, files } from '../data/files.ts'
export { loadFolder } from '../data/folder.ts'
export { decodeNpy, type NumpyArray } from '../data/npy.ts'
export { loadTableFile } from '../data/table-file.ts'
export type { Images } from '../robust/metric.ts'
export { imagesOf } from '../train/fit.ts'
export { holdOut, taskOf } from '../train/quick.ts'
