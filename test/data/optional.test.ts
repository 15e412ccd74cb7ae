import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { show } from '../../src/core/error.ts'
import { optionalPackage } from '../../src/data/optional.ts'

test('a package that is not installed is an error that says how to install it', async () => {
  const found = await optionalPackage('mixtrain-no-such-package', 'reading JPEG')()
  assert.is(
    E.isLeft(found) && show(found.left),
    'reading JPEG is not supported: the optional package mixtrain-no-such-package is not installed: npm install mixtrain-no-such-package',
  )
})

test('one that is there is loaded', async () => {
  const found = await optionalPackage<{ readonly Unzip: unknown }>('fflate', 'unpacking ZIP')()
  assert.type(E.isRight(found) ? found.right.Unzip : undefined, 'function')
})

test.run()
