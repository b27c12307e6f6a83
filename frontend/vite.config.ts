import { fileURLToPath } from 'node:url';
import react from '@vitejs/plugin-react';
import type { Plugin, Rollup } from 'vite';
import { defineConfig } from 'vitest/config';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The element that holds the data of the one-file page; `quantscope export` fills it. */
const DATA_PLACE = '<script id="quantscope-data" type="application/json"></script>';
/** The one-file page may load nothing at all, whatever its data holds. */
const OFFLINE_POLICY =
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'";

/** Emit offline.html in place of all else: the page with its script and its style sheet inside. */
function oneFile(): Plugin {
  return {
    name: 'one-file',
    enforce: 'post',
    generateBundle(_options: unknown, bundle: Rollup.OutputBundle) {
      const files = Object.values(bundle);
      const chunks = files.filter((file) => file.type === 'chunk');
      const styles = files.filter((file) => file.type === 'asset' && file.fileName.endsWith('.css'));
      const page = bundle['index.html'];
      if (chunks.length !== 1 || page?.type !== 'asset')
        throw new Error('the offline page needs one script and index.html');
      const script = chunks[0].code.replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--');
      const style = styles.map((file) => (file.type === 'asset' ? String(file.source) : '')).join('\n');
      const html = String(page.source)
        .replace(/<script[^>]*src=[^>]*><\/script>\s*/, '')
        .replace(/<link rel="stylesheet"[^>]*>\s*/, '')
        .replace(
          '<head>',
          () => `<head>\n    <meta http-equiv="Content-Security-Policy" content="${OFFLINE_POLICY}" />`,
        )
        .replace('</head>', () => `<style>${style}</style>\n  </head>`)
        .replace('</body>', () => `${DATA_PLACE}\n    <script type="module">${script}</script>\n  </body>`);
      for (const file of files) delete bundle[file.fileName];
      this.emitFile({ type: 'asset', fileName: 'offline.html', source: html });
    },
  };
}

export default defineConfig(({ mode }) => {
  const offline = mode === 'offline';
  return {
    plugins: [react(), ...(offline ? [oneFile()] : [])],
    resolve: {
      // A page opened from disk may not start a worker: it lays out graphs on its own thread.
      alias: {
        '#layout-thread': here(
          offline || mode === 'test' ? './src/graph/thread.main.ts' : './src/graph/thread.worker.ts',
        ),
      },
    },
    worker: { format: 'es' as const },
    build: {
      outDir: here('../src/quantscope/_web'),
      emptyOutDir: !offline,
      target: 'es2022',
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
      cssCodeSplit: !offline,
      chunkSizeWarningLimit: 900,
    },
    server: { proxy: { '/api': process.env['QUANTSCOPE_SERVER'] ?? 'http://127.0.0.1:8500' } },
    test: { environment: 'node', include: ['src/**/*.test.ts'] },
  };
});
