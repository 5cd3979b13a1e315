//! The last change of each SKU of a channel, in the order in which they came.
