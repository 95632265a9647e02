use raco::math::Matrix;

#[test]
fn a_matrix_is_checked_for_its_shape() {
    let message = |r: raco::Result<Matrix>| r.unwrap_err().what().to_owned();
    assert_eq!(
        message(Matrix::new(2, 3, vec![0.0; 5])),
        "a matrix of 2 rows and 3 columns cannot hold 5 values"
    );
    assert_eq!(message(Matrix::new(usize::MAX, 2, vec![])).split(" cannot").nth(1), Some(" hold 0 values"));
    let ragged = [vec![1.0, 2.0], vec![1.0]];
    assert_eq!(message(Matrix::from_rows(&ragged)), "row 1 of a matrix has 1 values where row 0 has 2");
    let product = Matrix::zeros(2, 3).mul_vec(&[1.0]);
    assert_eq!(product.unwrap_err().what(), "a matrix of 3 columns cannot multiply a vector of 1 values");
}

#[test]
fn the_gramian_holds_the_products_of_rows() {
    let j = Matrix::from_rows(&[vec![1.0, 2.0, 0.0], vec![0.0, -1.0, 3.0]]).unwrap();
    assert_eq!(j.gram(), Matrix::new(2, 2, vec![5.0, -2.0, -2.0, 10.0]).unwrap());
    assert_eq!(j.mul_vec(&[1.0, 1.0, 2.0]).unwrap(), [3.0, 5.0]);
    assert_eq!(
        serde_json::to_string(&j).unwrap(),
        r#"{"rows":2,"cols":3,"data":[1.0,2.0,0.0,0.0,-1.0,3.0]}"#
    );
}
