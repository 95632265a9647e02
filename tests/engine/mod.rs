mod jacobian;
