/** Types, house rules and the one direction of imports (docs/decisions/0001-house.md). */
import type { Linter } from 'eslint'
import { defineConfig } from 'eslint/config'
import tseslint from 'typescript-eslint'

/** Packages that talk to a service: only `lib/adapters` may know them. */
const VENDORS = [
  'kafkajs',
  'kafkajs/*',
  '@aws-sdk/*',
  '@smithy/*',
  '@platformatic/*',
  'aws-msk-iam-sasl-signer-js',
  '@aws-lambda-powertools/*',
  '@opentelemetry/*',
  'prom-client',
]
/** Frameworks: the shells' own affair. */
const FRAMEWORKS = ['@middy/*', 'commander', 'aws-lambda']
const CRYPTO = ['crypto', 'node:crypto']

/** What each room may import from inside the house, from the ground up. */
const ROOMS: Record<string, string[]> = {
  envelope: ['envelope'],
  contract: ['envelope', 'contract'],
  keys: ['envelope', 'keys'],
  audit: ['envelope', 'contract', 'keys', 'audit'],
  admission: ['envelope', 'contract', 'keys', 'audit', 'admission'],
  client: ['envelope', 'contract', 'keys', 'client'],
  adapters: ['envelope', 'contract', 'keys', 'audit', 'admission', 'client', 'adapters'],
  local: ['envelope', 'contract', 'keys', 'audit', 'admission', 'client', 'adapters', 'local'],
}

const restricted = (groups: string[][], message: string): { group: string[]; message: string }[] =>
  groups.map((group) => ({ group, message }))

const imports = (banned: { group: string[]; message: string }[]): Linter.RulesRecord => ({
  '@typescript-eslint/no-restricted-imports': ['error', { patterns: banned }],
})

const inRoom = (room: string): { group: string[]; message: string }[] => {
  const allowed = ROOMS[room] ?? []
  const others = Object.keys(ROOMS).filter((name) => !allowed.includes(name))
  const up = ['functions', 'cli', 'demo', 'bench', 'test'].map((name) => `**/${name}/**`)
  const runtime = room === 'adapters' || room === 'local' ? [] : ['**/runtime.ts']
  const ports = room === 'envelope' ? ['**/ports.ts'] : []
  const rows = [
    {
      group: [...others.map((name) => `../${name}/**`), ...up, ...runtime, ...ports],
      message: `lib/${room} may not import this room (architecture: imports point one way).`,
    },
    { group: FRAMEWORKS, message: 'Frameworks belong in functions/ and cli/.' },
  ]
  if (room !== 'adapters') rows.push({ group: VENDORS, message: 'Only lib/adapters talks to a vendor.' })
  if (room !== 'local' && room !== 'envelope')
    rows.push({ group: CRYPTO, message: 'Cryptography comes from lib/envelope/crypto.ts.' })
  return rows
}

export default defineConfig(
  {
    ignores: [
      'node_modules/',
      '.cache/',
      '**/.venv/',
      'dist/',
      'build/',
      'coverage/',
      '**/node_modules/',
      'bin/',
    ],
  },
  tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { project: './tsconfig.json' } },
    rules: {
      '@typescript-eslint/consistent-type-assertions': [
        'error',
        { assertionStyle: 'as', objectLiteralTypeAssertions: 'never' },
      ],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      'no-restricted-exports': ['error', { restrictDefaultExports: { direct: true } }],
      eqeqeq: 'error',
    },
  },
  { files: ['*.config.ts'], rules: { 'no-restricted-exports': 'off' } },
  {
    files: ['lib/**/*.ts'],
    rules: {
      'no-restricted-properties': [
        'error',
        { object: 'process', property: 'env', message: 'Settings are read in functions/ and cli/ only.' },
      ],
      'no-console': 'error',
    },
  },
  {
    files: ['lib/**/*.ts'],
    ignores: ['lib/local/**', 'lib/adapters/**', 'lib/client/machine.ts'],
    rules: {
      'no-restricted-properties': [
        'error',
        { object: 'process', property: 'env', message: 'Settings are read in functions/ and cli/ only.' },
        { object: 'Date', property: 'now', message: 'Time is given (ports.ts, Clock).' },
        { object: 'Math', property: 'random', message: 'Randomness is given (envelope/crypto.ts).' },
      ],
      'no-restricted-syntax': [
        'error',
        {
          selector: 'NewExpression[callee.name="Date"][arguments.length=0]',
          message: 'Time is given (ports.ts, Clock).',
        },
      ],
    },
  },
  ...Object.keys(ROOMS).map((room) => ({ files: [`lib/${room}/**/*.ts`], rules: imports(inRoom(room)) })),
  {
    files: ['lib/envelope/*.ts'],
    ignores: ['lib/envelope/crypto.ts'],
    rules: imports([
      ...inRoom('envelope'),
      ...restricted([CRYPTO], 'Cryptography comes from lib/envelope/crypto.ts.'),
    ]),
  },
  // The published face stands above all of lib; nothing inside imports it.
  { files: ['lib/client/sealgate.ts'], rules: imports(inRoom('local')) },
  {
    files: ['functions/**/*.ts', 'cli/**/*.ts'],
    rules: imports(restricted([VENDORS], 'Only lib/adapters talks to a vendor.')),
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      // Vectors and answers are read as untyped JSON, and their shape is what the test is about.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/unbound-method': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
)
