import { withoutScope } from './names';
import classes from './Name.module.css';

interface Props {
  children: string;
  /** The modules around all ops, which are left out. */
  scope?: string;
}

/** A name of an op or a tensor on one line; where there is no room for all of it, its end is seen, in which names differ. */
export const Name = ({ children, scope = '' }: Props) => (
  <span className={classes.name}>
    <bdi>{withoutScope(children, scope)}</bdi>
  </span>
);
