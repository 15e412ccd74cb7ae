// What page and workers say to each other, as plain data.
import type { Checkpoint, EpochRecord } from 'mixtrain'
import type { MethodName } from 'mixtrain/bounds'
import type { ObjectiveName } from 'mixtrain/losses'

/** Pixels of one image, float32 in [0, 1]. */
export const SIDE = 28
export const PIXELS = SIDE * SIDE
export const CLASSES = 10

/** The methods of the page, the loosest first. */
export const METHODS = ['ibp', 'crown-ibp', 'symbolic', 'crown', 'alpha-crown'] as const satisfies readonly MethodName[]
export type Method = (typeof METHODS)[number]
/** The losses that can be chosen: those that train in the page's time. */
export const LOSSES = [
  ...(['mixtrain', 'natural', 'pgd', 'trades', 'ibp', 'crown-ibp', 'sabr', 'mtl-ibp'] as const),
] as const satisfies readonly ObjectiveName[]
export type LossName = (typeof LOSSES)[number]

export type DeviceChoice = 'auto' | 'webgpu' | 'wasm'

export interface TrainSettings {
  readonly device: DeviceChoice
  readonly loss: LossName
  /** Full l-inf radius in pixel units. */
  readonly epsilon: number
  readonly epochs: number
  /** Training images, the first of the embedded digits; a tenth of them is held out. */
  readonly images: number
  /** Images of a batch that MixTrain bounds. */
  readonly k: number
  /** Weight of the robust term in [0, 1]; undefined: as the loss has it. */
  readonly balance: number | undefined
  readonly seed: number
}

/** Where the weights that the page shows come from. */
export type Origin =
  | { readonly kind: 'untrained' }
  | { readonly kind: 'starter'; readonly epsilon: number }
  | {
      readonly kind: 'trained'
      readonly loss: LossName
      readonly epsilon: number
      readonly epochs: number
      readonly of: number
    }
  | { readonly kind: 'file'; readonly name: string; readonly network: string; readonly epsilon: number | undefined }

/** The network that is looked at, and the one beside it, which was trained as usual. */
export type Slot = 'opened' | 'natural'

export interface Question {
  readonly image: Float32Array
  /** The class that ought to win; undefined: the one that wins at the image itself. */
  readonly label: number | undefined
  readonly epsilon: number
  readonly method: Method
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

/** A point of the box that is not classified as the label. */
export interface Adversarial {
  readonly image: Float32Array
  readonly prediction: number
}

/** What is known of the values in one layer over the box. */
export interface Layer {
  readonly name: string
  readonly neurons: number
  readonly meanWidth: number
  readonly widest: number
  /** Neurons below 0, above 0, and of either sign: of what a ReLU sees. */
  readonly signs: { readonly below: number; readonly above: number; readonly open: number } | undefined
}

export interface Rates {
  readonly acc: number
  readonly era: number | null
  readonly vra: number
}

export type ToWorker =
  | { readonly type: 'train'; readonly settings: TrainSettings; readonly resume: Checkpoint | undefined }
  | { readonly type: 'pause' | 'continue' | 'stop' | 'export' | 'onnx' }
  /** `compare`: the other network, the other methods and the layers, too. */
  | { readonly type: 'inspect'; readonly id: number; readonly question: Question; readonly compare: boolean }
  | { readonly type: 'radius'; readonly id: number; readonly question: Question }
  | { readonly type: 'measure'; readonly count: number; readonly epsilon: number; readonly method: Method }
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
      /** Whether there is a network to compare with. */
      readonly natural: boolean
    }
  | { readonly type: 'model'; readonly origin: Origin }
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
  | {
      readonly type: 'bounds'
      readonly id: number
      readonly slot: Slot
      readonly question: Question
      readonly bounds: Bounds
    }
  | {
      readonly type: 'attacked'
      readonly id: number
      readonly slot: Slot
      readonly adversarial: Adversarial | undefined
    }
  | { readonly type: 'margins'; readonly id: number; readonly method: Method; readonly bounds: Bounds }
  | { readonly type: 'layers'; readonly id: number; readonly layers: readonly Layer[] }
  | { readonly type: 'radius'; readonly id: number; readonly epsilon: number }
  | { readonly type: 'measuring'; readonly slot: Slot; readonly done: number; readonly total: number }
  | { readonly type: 'measured'; readonly rates: Readonly<Partial<Record<Slot, Rates>>> }
  | { readonly type: 'exported'; readonly name: string; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: 'onnx'; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: 'notice'; readonly level: 'info' | 'warning' | 'error'; readonly text: string }

/** Asks the worker of proofs: to write one, or to check one against the network that it is about. */
export type ToProver =
  | {
      readonly type: 'prove'
      readonly network: Uint8Array
      readonly pixels: Float32Array
      readonly label: number
      readonly epsilon: string
    }
  | { readonly type: 'check'; readonly network: Uint8Array; readonly proof: Uint8Array }

export type FromProver =
  | { readonly type: 'proved'; readonly proof: Uint8Array<ArrayBuffer> }
  | {
      readonly type: 'checked'
      readonly verdict: string
      readonly leaves: number
      readonly label: number | undefined
      readonly epsilon: string | undefined
      readonly seconds: number
    }
  | { readonly type: 'refused'; readonly reason: string }
