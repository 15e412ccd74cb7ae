import { test } from 'uvu'
import { examples, print } from '../pages.ts'

/** The programs of the README are tried by its own test; those of these pages need files of a user, or a browser. */
const elsewhere = ['README.md', 'docs/fine-tune.md', 'docs/in-the-browser.md']

test('the programs of the manual print what stands below them', () =>
  print(examples.filter(({ page }) => !elsewhere.includes(page))))

test.run()
