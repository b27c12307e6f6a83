import './app/mantine.css';
import './app/app.css';
import { MantineProvider } from '@mantine/core';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { SourceProvider } from './api/queries';
import { sourceOf } from './api/source';
import { App } from './app/App';
import { theme } from './app/theme';

const queries = new QueryClient({ defaultOptions: { queries: { refetchOnWindowFocus: false } } });

// Style sheets come as files: the server's policy forbids those that a script writes into the page.
createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <MantineProvider theme={theme} defaultColorScheme="auto" withCssVariables={false} withGlobalClasses={false}>
      <QueryClientProvider client={queries}>
        <SourceProvider value={sourceOf(document)}>
          <App />
        </SourceProvider>
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
