"""The content of tables and charts, as records that text, HTML and TensorBoard show."""
