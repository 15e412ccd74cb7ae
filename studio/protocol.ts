import type { Checkpoint, EpochRecord, MethodName } from '../src/index.ts'

/** Pixels of one image, float32 in [0, 1]. */
export const SIDE = 28
export const PIXELS = SIDE * SIDE
export const CLASSES = 10

export type DeviceChoice = 'auto' | 'webgpu' | 'wasm'

export interface TrainSettings {
  readonly device: DeviceChoice
  /** Full l-inf radius in pixel units. */
  readonly epsilon: number
  readonly epochs: number
  /** Training images, the first of the embedded digits; a tenth of them is held out. */
  readonly images: number
  readonly seed: number
}

/** Where the weights that the page shows come from. */
export type Origin =
  | { readonly kind: 'untrained' }
  | { readonly kind: 'starter'; readonly epsilon: number }
  | { readonly kind: 'trained'; readonly epsilon: number; readonly epochs: number; readonly of: number }
  | { readonly kind: 'file'; readonly name: string; readonly network: string; readonly epsilon: number | undefined }

export interface Question {
  readonly image: Float32Array
  /** The class that ought to win; undefined: the one that wins at the image itself. */
  readonly label: number | undefined
  readonly epsilon: number
  readonly method: MethodName
}

/** What `mixtrain bounds` prints about one image. */
export interface Bounds {
  readonly label: number
  readonly prediction: number
  readonly logits: readonly number[]
  readonly lower: readonly number[]
  readonly upper: readonly number[]
  /** Lower bounds of z_label - z_j by class j; 0 at the label. */
  readonly margin: readonly number[]
  readonly verdict: 'certified' | 'open' | 'misclassified'
}

/** The worst point that PGD found in the box, if it is not classified as the label. */
export interface Adversarial {
  readonly image: Float32Array
  readonly prediction: number
  readonly logits: readonly number[]
}

export type ToWorker =
  | { readonly type: 'train'; readonly settings: TrainSettings; readonly resume: Checkpoint | undefined }
  | { readonly type: 'pause' | 'continue' | 'stop' | 'export' }
  | { readonly type: 'inspect'; readonly id: number; readonly question: Question }
  | { readonly type: 'radius'; readonly id: number; readonly question: Question }
  | { readonly type: 'load'; readonly name: string; readonly bytes: Uint8Array }
  | { readonly type: 'restore'; readonly checkpoint: Checkpoint; readonly settings: TrainSettings }

export type FromWorker =
  | {
      readonly type: 'ready'
      readonly threads: number
      readonly isolated: boolean
      /** The adapter's name. */
      readonly gpu: string | undefined
      /** Test images as bytes, and their labels. */
      readonly images: Uint8Array
      readonly labels: Uint8Array
    }
  | { readonly type: 'model'; readonly origin: Origin; readonly parameters: number }
  | { readonly type: 'training'; readonly text: string }
  | {
      readonly type: 'progress'
      readonly phase: 'preparing' | 'training' | 'evaluating'
      readonly epoch: number
      readonly done: number
      readonly total: number
    }
  | { readonly type: 'epoch'; readonly record: EpochRecord; readonly checkpoint: Checkpoint }
  | { readonly type: 'ended'; readonly why: 'finished' | 'stopped' | 'failed'; readonly message: string | undefined }
  | { readonly type: 'bounds'; readonly id: number; readonly bounds: Bounds }
  | { readonly type: 'attacked'; readonly id: number; readonly adversarial: Adversarial | undefined }
  | { readonly type: 'radius'; readonly id: number; readonly epsilon: number }
  | { readonly type: 'exported'; readonly name: string; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: 'notice'; readonly level: 'info' | 'warning' | 'error'; readonly text: string }
