import { createTheme, Menu, Modal, Tooltip } from '@mantine/core';

// Colours and sizes are CSS variables in app.css, since the server's policy forbids a style element made by a script.
export const theme = createTheme({
  components: {
    Modal: Modal.extend({ defaultProps: { lockScroll: false, centered: true, transitionProps: { duration: 0 } } }),
    Menu: Menu.extend({ defaultProps: { transitionProps: { duration: 0 }, shadow: 'md' } }),
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 250, withArrow: true, transitionProps: { duration: 0 } } }),
  },
});
