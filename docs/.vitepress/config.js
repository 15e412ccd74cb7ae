// The site of the documentation: `npm run docs:build` writes it to build/site, `npm run docs:dev` serves it while pages change.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { defineConfig } from 'vitepress'
import { exampleNames, plainOutput, rewrites, root, siteLinks } from './pages.js'

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const page = (text, link) => ({ text, link })
const section = (text, items) => ({ text, items, collapsed: false })

const manual = [
  section('Begin', [
    page('What it is', '/'),
    page('Getting started', '/getting-started'),
    page('Examples', '/examples/'),
    page('Glossary', '/glossary'),
  ]),
  section('Train', [
    page('Losses', '/losses'),
    page('Data and networks', '/data-and-networks'),
    page('Your own', '/your-own'),
    page('Go on with a trained model', '/fine-tune'),
    page('In a page', '/in-the-browser'),
  ]),
  section('Prove', [
    page('Bounds', '/bounds'),
    page('Rounding and proofs', '/rounding'),
    page('Certify a PyTorch model', '/certify-a-pytorch-model'),
    page('Verify a property', '/verify-a-property'),
    page('The format of proofs', '/proof'),
    page('Lemmas in Coq', '/proofs/'),
  ]),
  section('Run', [
    page('Command line', '/command-line'),
    page('Devices', '/devices'),
    page('Beyond one machine', '/cluster'),
    page('VNN-COMP', '/tools/vnncomp/'),
  ]),
  section('Know', [
    page('Method', '/method'),
    page('Benchmarks', '/benchmarks'),
    page('Limits', '/limits'),
    page('Changes', '/CHANGELOG'),
    page('Architecture', '/ARCHITECTURE'),
    page('Contributing', '/CONTRIBUTING'),
    page('Security', '/SECURITY'),
  ]),
]
const examples = [
  section('Examples', [page('All', '/examples/'), ...exampleNames.map((n) => page(n, `/examples/${n}`))]),
]

/** Written by docs/api.js from the docstrings: the names of a door, beside the other doors. A list of all names on every page would be most of the site. */
const sidebarOfApi = join(root, 'docs/api/typedoc-sidebar.json')
const [parts, names] = existsSync(sidebarOfApi)
  ? JSON.parse(readFileSync(sidebarOfApi, 'utf8'))
  : [{ items: [] }, { items: [] }]
const folders = [{ text: '', link: '/api/mixtrain/', items: names.items }, ...parts.items]
const doors = section(
  'Doors',
  folders.map(({ text, link }) => page(['mixtrain', text].filter((part) => part !== '').join('/'), link)),
)
const namesOf = ({ items }) =>
  items.map((kind) => ({ ...kind, collapsed: false, items: kind.items.map(({ text, link }) => page(text, link)) }))
const api = Object.fromEntries([
  ['/api/', [doors]],
  ...folders.map((folder) => [folder.link, [doors, ...namesOf(folder)]]),
])

/** What stands above the README on the first page. */
const home = {
  layout: 'home',
  hero: {
    name: 'mixtrain',
    text: 'Networks whose robustness is proved',
    tagline:
      'Interval tensors are values like any other: bounds, attacks and losses are graphs that you compose, in TypeScript, on any machine.',
    actions: [
      { theme: 'brand', text: 'Getting started', link: '/getting-started' },
      { theme: 'alt', text: 'Examples', link: '/examples/' },
      { theme: 'alt', text: 'API', link: '/api/' },
    ],
  },
  features: [
    {
      title: 'Train',
      details: 'MixTrain and the losses of the field, each one expression that you can rearrange.',
      link: '/losses',
    },
    {
      title: 'Bound',
      details: 'Intervals, symbolic bounds, CROWN and their mixtures, differentiated like any graph.',
      link: '/bounds',
    },
    {
      title: 'Prove',
      details: 'Outward rounding, certificates, and proofs that an independent checker replays in exact arithmetic.',
      link: '/rounding',
    },
    {
      title: 'Verify',
      details: 'ONNX and VNN-LIB by branch and bound; a counterexample is confirmed exactly.',
      link: '/verify-a-property',
    },
    {
      title: 'Anywhere',
      details: 'Node, Deno, Bun and browsers: one seed, the same bits, any number of threads.',
      link: '/devices',
    },
    {
      title: 'Your own',
      details: 'Network, data, op, loss, optimizer: small pure functions, checked by the library.',
      link: '/your-own',
    },
  ],
}

/** Pages lie outside of this package, where what they are compiled to would not find Vue. */
const vueOfSite = {
  name: 'vue-of-site',
  enforce: 'pre',
  resolveId(id, _, { ssr }) {
    if (!/^vue($|\/)/.test(id)) return
    return ssr ? { id, external: true } : this.resolve(id, join(root, 'docs/package.json'), { skipSelf: true })
  },
}

export default defineConfig({
  title: 'mixtrain',
  description: 'Train neural networks whose robustness is proved, in TypeScript, on any machine',
  lang: 'en-US',
  // A static host may serve it below a path: DOCS_BASE=/mixtrain/ npm run docs:build.
  base: process.env.DOCS_BASE ?? '/',
  srcDir: '..',
  srcExclude: [
    '{assembly,bench/!(results),build,dist,node_modules,src,studio,test,runs}/**',
    'docs/node_modules/**',
    'tools/vnncomp/node/**',
  ],
  outDir: '../build/site',
  cleanUrls: false,
  rewrites,
  metaChunk: true,
  markdown: { config: (md) => md.use(siteLinks).use(plainOutput) },
  vite: {
    plugins: [vueOfSite],
    build: { chunkSizeWarningLimit: 2000 },
  },
  transformPageData: ({ relativePath, frontmatter }) =>
    relativePath === 'index.md' ? { frontmatter: { ...frontmatter, ...home } } : undefined,
  themeConfig: {
    nav: [
      page('Manual', '/manual'),
      page('Examples', '/examples/'),
      page('API', '/api/'),
      page('Command line', '/command-line'),
      { text: version, items: [page('Changes', '/CHANGELOG'), page('Contributing', '/CONTRIBUTING')] },
    ],
    sidebar: { ...api, '/examples/': examples, '/': manual },
    outline: [2, 3],
    search: { provider: 'local' },
    docFooter: { prev: 'Before', next: 'Next' },
  },
})
