import { test } from 'uvu'
import { reference } from '../../src/backend/reference.ts'
import { suite } from './laws.ts'

suite('reference', async () => reference())

test.run()
