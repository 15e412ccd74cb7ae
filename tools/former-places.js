// Modules of dist/src that moved in the second edition of the house can still be imported where they were, for scripts that were written against its insides:
// a file of one line each, made after the compiler ran. The source has each module once.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const PLACES = {
  'backend/wasm-memory': 'backend/wasm/memory',
  'backend/wasm-pace': 'backend/wasm/pace',
  'backend/quota': 'backend/wasm/quota',
  'backend/wasm-threads': 'backend/wasm/threads',
  'backend/wasm': 'backend/wasm/wasm',
  'backend/webgpu-adapter': 'backend/webgpu/adapter',
  'backend/webgpu-check': 'backend/webgpu/check',
  'backend/webgpu-kernels': 'backend/webgpu/kernels',
  'backend/webgpu-loops': 'backend/webgpu/loops',
  'backend/webgpu-pages': 'backend/webgpu/pages',
  'backend/webgpu-pipeline': 'backend/webgpu/pipeline',
  'backend/webgpu-program': 'backend/webgpu/program',
  'backend/webgpu-watch': 'backend/webgpu/watch',
  'backend/webgpu': 'backend/webgpu/webgpu',
  'backend/wgsl-conv': 'backend/webgpu/wgsl/conv',
  'backend/wgsl-index': 'backend/webgpu/wgsl/index',
  'backend/wgsl-loop': 'backend/webgpu/wgsl/loop',
  'backend/wgsl-math': 'backend/webgpu/wgsl/math',
  'backend/wgsl-matmul': 'backend/webgpu/wgsl/matmul',
  'backend/wgsl-product': 'backend/webgpu/wgsl/product',
  'backend/wgsl-tile': 'backend/webgpu/wgsl/tile',
  'backend/wgsl': 'backend/webgpu/wgsl/wgsl',
  'tape/anatomy': 'bounds/anatomy',
  'tape/concretize': 'bounds/concretize',
  'tape/executions': 'bounds/executions',
  'tape/ibp': 'bounds/ibp',
  'tape/linear-bounds': 'bounds/linear-bounds',
  'tape/listed': 'bounds/lists',
  'tape/rows': 'bounds/rows',
  'tape/screen': 'bounds/screen',
  'tape/slack': 'bounds/slack',
  'tape/starts': 'bounds/starts',
  'tape/walk': 'bounds/walk',
  'tape/patches': 'bounds/windows',
  'tape/accumulate': 'compile/accumulate',
  'backend/backend': 'compile/backend',
  'tape/keep': 'compile/keep',
  'tape/loops': 'compile/loops',
  'tape/lower': 'compile/lower',
  'tape/plan': 'compile/plan',
  'tape/program': 'compile/program',
  'backend/region': 'compile/region',
  'tape/rewrites': 'compile/rewrites',
  'tape/run': 'compile/run',
  'tape/schedule': 'compile/schedule',
  'tape/steps': 'compile/steps',
  'tape/tape': 'compile/tape',
  'tape/vjp': 'compile/vjp',
  'loss/criterion': 'nn/criterion',
  'robust/branch-and-bound': 'verify/branch-and-bound',
  'robust/counterexample-check': 'verify/counterexample-check',
  'robust/counterexample': 'verify/counterexample',
  'robust/exact': 'verify/exact',
  'robust/goals': 'verify/goals',
  'robust/input-splits': 'verify/input-splits',
  'robust/property-attack': 'verify/property-attack',
  'robust/prove': 'verify/prove',
  'robust/queue': 'verify/queue',
  'robust/relu-splits': 'verify/relu-splits',
  'robust/root-bounds': 'verify/root-bounds',
  'robust/trace': 'verify/trace',
}

const built = fileURLToPath(new URL('../dist/src/', import.meta.url))
for (const [from, to] of Object.entries(PLACES)) {
  const path = join(built, `${from}.js`)
  if (!existsSync(join(built, `${to}.js`))) throw new Error(`${from} moved to ${to}, which is not there`)
  mkdirSync(dirname(path), { recursive: true })
  const target = relative(dirname(path), join(built, `${to}.js`)).replaceAll('\\', '/')
  writeFileSync(path, `export * from '${target.startsWith('.') ? target : `./${target}`}'\n`)
}
