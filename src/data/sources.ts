/** A file as it is published. */
export interface Published {
  readonly name: string
  readonly bytes: number
  /** Hexadecimal. */
  readonly sha256: string
}

/** A public data set: where its files are, and what comes of them. */
export interface Source {
  readonly files: readonly Published[]
  /** Addresses of the folder of the files, the official one first; the others are tried when it does not answer. */
  readonly at: readonly string[]
  /** How the files are packed: `unpack` names the folder within the archive that is taken out of it. */
  readonly unpack?: { readonly format: 'tar.gz' | 'zip'; readonly folder: string }
  readonly count: { readonly train: number; readonly test: number }
  readonly about: string
}

const idx = (...parts: readonly (readonly [name: string, bytes: number, sha256: string])[]): readonly Published[] =>
  parts.map(([name, bytes, sha256]) => ({ name: `${name}-ubyte.gz`, bytes, sha256 }))

/** The data sets by name. Digests are those that the data sets' users agree on; the formats are in idx.ts, cifar.ts, tiny-imagenet.ts. */
export const sources = {
  mnist: {
    files: idx(
      ['train-images-idx3', 9912422, '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609'],
      ['train-labels-idx1', 28881, '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c'],
      ['t10k-images-idx3', 1648877, '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6'],
      ['t10k-labels-idx1', 4542, 'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6'],
    ),
    // Its own page asks for a password since 2022; torchvision and others take the copy.
    at: ['http://yann.lecun.com/exdb/mnist/', 'https://ossci-datasets.s3.amazonaws.com/mnist/'],
    count: { train: 60000, test: 10000 },
    about: 'handwritten digits, 28 x 28 grey, 12 MB; CC BY-SA 3.0 (Yann LeCun, Corinna Cortes)',
  },
  'fashion-mnist': {
    files: idx(
      ['train-images-idx3', 26421880, '3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84'],
      ['train-labels-idx1', 29515, 'a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845'],
      ['t10k-images-idx3', 4422102, '346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073'],
      ['t10k-labels-idx1', 5148, '67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5'],
    ),
    at: [
      'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/',
      'https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/',
    ],
    count: { train: 60000, test: 10000 },
    about: 'clothes, 28 x 28 grey, 31 MB; MIT (Zalando SE)',
  },
  'cifar-10': {
    files: [
      {
        name: 'cifar-10-binary.tar.gz',
        bytes: 170052171,
        sha256: 'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
      },
    ],
    at: ['https://www.cs.toronto.edu/~kriz/'],
    unpack: { format: 'tar.gz', folder: 'cifar-10-batches-bin' },
    count: { train: 50000, test: 10000 },
    about: 'objects of 10 classes, 32 x 32 colour, 170 MB (Alex Krizhevsky)',
  },
  'tiny-imagenet': {
    files: [
      {
        name: 'tiny-imagenet-200.zip',
        bytes: 248100043,
        sha256: '6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821',
      },
    ],
    at: ['http://cs231n.stanford.edu/'],
    unpack: { format: 'zip', folder: 'tiny-imagenet-200' },
    count: { train: 100000, test: 10000 },
    about: 'objects of 200 classes, 64 x 64 colour, 248 MB, and 1.35 GB when decoded; for research (Stanford CS231n)',
  },
} as const satisfies Readonly<Record<string, Source>>
export type SourceName = keyof typeof sources
